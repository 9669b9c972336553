"""Agents: the intersection of their scope and their owner's rights, for hours, at their hours."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import holdfast_profiles
from holdfast_trust.agents import LONGEST_HOURS
from holdfast_trust.decisions import ACTIONS, Decisions, Resource
from holdfast_trust.errors import TrustError
from holdfast_trust.hours import NEVER, Hours, checked_hours, read_hours
from holdfast_trust.ledger import read
from holdfast_trust.principals import ROLES, Principal, Role
from holdfast_trust.proof import timely
from holdfast_trust.scopes import VERBS, Scope, checked_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {"jurisdiction": "de", "classification": "confidential"}
MODEL = Resource("model", "elsewhere/name", ("research",), LABELS)
ASK = checked_scope(["infer"], [], ["elsewhere/name"])
HOUR = 3600


class At:
    """A clock that says what it is told."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def decisions() -> Decisions:
    return Decisions()


def agent(store: TrustStore, scope: Scope = ASK, **more: Any) -> str:
    """Make the agent scout of ada, who is in research; return its secret."""
    store.add_user("ada", ("research",))
    more = {"lifetime_seconds": HOUR} | more
    return store.create_agent("scout", "ada", scope=scope, **more).secret


def proven(store: TrustStore, secret: str) -> Principal:
    found = store.examine(secret)
    assert isinstance(found, Principal), found
    return found


def test_an_agent_has_its_owners_teams_and_says_whose_it_is(store: TrustStore) -> None:
    scout = proven(store, agent(store))
    assert (scout.kind, scout.name, scout.owner) == ("agent", "scout", "ada")
    assert scout.teams == ("research",)
    assert scout.scope == ASK
    assert scout.expires_at is not None
    assert scout.expires_at == pytest.approx(time.time() + HOUR, abs=10)
    assert proven(store, store.issue_token("ada").secret).owner is None


def test_it_infers_what_it_was_given_and_its_owner_may(
    store: TrustStore, decisions: Decisions
) -> None:
    scout = proven(store, agent(store))
    assert decisions.decide(scout, "model:infer", MODEL).allowed
    other = replace(MODEL, id="elsewhere/other")
    assert decisions.decide(scout, "model:infer", other).policies == ("token.other-repository",)
    assert decisions.decide(scout, "model:read", MODEL).policies == ("token.no-read",)
    closed = replace(MODEL, team_readers=("press",))
    assert not decisions.decide(scout, "model:infer", closed).allowed


@pytest.mark.parametrize("loss", ["leaves", "disabled", "revoked", "stopped"])
def test_what_its_owner_loses_it_loses(store: TrustStore, decisions: Decisions, loss: str) -> None:
    secret = agent(store)
    before = proven(store, secret)
    assert store.still_valid(before)
    if loss == "leaves":
        store.remove_member("research", "ada")
        after = proven(store, secret)
        assert after.teams == ()
        assert not decisions.decide(after, "model:infer", MODEL).allowed
        return
    if loss == "disabled":
        store.set_disabled("ada", disabled=True)
    elif loss == "revoked":
        store.revoke_all("ada")
    else:
        store.kill("user", "ada")
    assert store.examine(secret) == loss
    assert not store.still_valid(before)
    assert store.agents()[0]["state"] == ("valid" if loss == "stopped" else "owner barred")
    if loss == "disabled":  # the owner comes back: what ended stays ended
        store.set_disabled("ada", disabled=False)
        assert store.examine(secret) == "revoked"


def test_another_process_sees_its_owners_loss_within_the_cache(
    store: TrustStore, database_url: str
) -> None:
    secret = agent(store)
    elsewhere = TrustStore(database_url)
    assert elsewhere.authenticate(secret)
    store.set_disabled("ada", disabled=True)
    deadline = time.monotonic() + 1
    while elsewhere.authenticate(secret):
        assert time.monotonic() < deadline
    elsewhere.close()


def test_it_is_bound_to_its_owners_teams_it_was_given(store: TrustStore) -> None:
    for team in ("press", "research"):
        store.add_team(team)
    store.add_user("ada", {"press": "write", "research": "admin"})
    scope = checked_scope(["write"], ["research"], ["research/*"])
    scout = proven(store, agent(store, scope))
    assert scout.teams == ("research",)
    assert scout.roles == {"research": "write"}  # an admin's agent administers nothing


NAMES = ("press", "research", "serving", "operators", "reviewers")
IDS = ("press/x", "press/y", "research/x", "ada/own", "scout/own")
some = st.lists(st.sampled_from(("read", "contribute", "write", "infer")), min_size=1, unique=True)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    teams = draw(st.lists(st.sampled_from((*NAMES, "ada")), unique=True))
    bounds = st.sampled_from((*IDS, "press/*", "research/*", "ada/*"))
    return checked_scope(draw(some), teams, draw(st.lists(bounds, min_size=1, unique=True)))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TrustStore:
    store = TrustStore(f"sqlite:///{tmp_path_factory.mktemp('agents')}/identity.db")
    store.create_schema()
    for team in NAMES:
        store.add_team(team)
    return store


@given(
    memberships=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(ROLES)),
    scope=scopes(),
    id_=st.sampled_from(IDS),
    readers=st.lists(st.sampled_from(NAMES), unique=True),
    private=st.booleans(),
    gated=st.booleans(),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_agent_may_nothing_that_its_owner_or_its_scope_may_not(  # noqa: PLR0913 - what varies
    shared: TrustStore,
    decisions: Decisions,
    *,
    memberships: dict[str, Role],
    scope: Scope,
    id_: str,
    readers: list[str],
    private: bool,
    gated: bool,
) -> None:
    shared.add_user("ada")
    for team in NAMES:
        shared.remove_member(team, "ada")
    shared.add_user("ada", memberships)
    person = proven(shared, shared.issue_token("ada", rotate=True).secret)
    bounded = proven(shared, shared.issue_token("ada", "less", rotate=True, scope=scope).secret)
    if shared.agents():
        shared.end_agent("scout")
    issued = shared.create_agent("scout", "ada", lifetime_seconds=HOUR, scope=scope)
    scout = proven(shared, issued.secret)
    for kind in ("model", "dataset"):
        resource = Resource(kind, id_, tuple(readers), LABELS, private, gated)
        for action in ACTIONS:
            if not action.startswith(kind):
                continue
            allowed = decisions.decide(scout, action, resource).allowed
            assert not allowed or decisions.decide(person, action, resource).allowed
            assert not allowed or decisions.decide(bounded, action, resource).allowed
            assert not allowed or not action.endswith((":admin", ":approve"))
            if action == "model:infer":  # nothing is taken away beside that
                assert allowed == decisions.decide(bounded, action, resource).allowed


@given(one=scopes(), two=scopes(), verb=st.sampled_from(VERBS), id_=st.sampled_from(IDS))
def test_a_scope_narrowed_is_within_both(one: Scope, two: Scope, verb: str, id_: str) -> None:
    def permits(scope: Scope) -> bool:
        namespace = f"{id_.partition('/')[0]}/*"
        named = scope.repositories is None or not {id_, namespace}.isdisjoint(scope.repositories)
        return named and verb in scope.included

    both = one.narrowed(two)
    assert permits(both) == (permits(one) and permits(two))
    for team in (*NAMES, "ada"):
        assert both.counts(team) == (one.counts(team) and two.counts(team))
    assert one.narrowed(Scope()).included == one.included


def test_the_schema_knows_no_agent_that_approves_or_administers() -> None:
    schema = (holdfast_profiles.folder("policy") / "holdfast.cedarschema").read_text()
    lines = [line for line in schema.splitlines() if "appliesTo" in line]
    without = {line.split('"')[1] for line in lines if "Agent" not in line}
    assert without == {"model:admin", "dataset:admin", "model:approve"}


def test_approving_and_administering_are_for_no_agent(decisions: Decisions) -> None:
    forged = Principal(
        1,
        "agent",
        "scout",
        ("operators", "research", "reviewers", "serving"),
        roles=dict.fromkeys(("operators", "research", "reviewers", "serving"), "admin"),
    )
    owned = Resource("model", "research/x", (), LABELS)
    for action in ("model:approve", "model:admin"):
        assert not decisions.decide(forged, action, owned).allowed
    serving = replace(forged, teams=("serving", "reviewers"), roles={})
    assert not decisions.decide(serving, "model:read", owned).allowed


def test_it_ends_with_its_hours_to_live_and_its_token_no_later(
    store: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = agent(store)
    more = store.issue_token("scout", "more", lifetime_seconds=90 * 86400)
    ever = store.issue_token("scout", "ever")
    end = proven(store, secret).expires_at
    assert end is not None
    assert more.expires_at == ever.expires_at == end
    monkeypatch.setattr(store, "_clock", At(end - 1))
    assert store.authenticate(secret)
    monkeypatch.setattr(store, "_clock", At(end))
    assert store.examine(secret) == "expired"  # from the cache as well
    assert store.agents()[0]["state"] == "expired"


def test_it_acts_at_its_hours_only(store: TrustStore, monkeypatch: pytest.MonkeyPatch) -> None:
    day = int(time.time()) // 86400 * 86400 + 86400  # midnight to come, in UTC
    secret = agent(store, hours=checked_hours("08-18"), lifetime_seconds=48 * HOUR)
    for at, refusal in (
        (day + 8 * HOUR - 1, "hours"),
        (day + 8 * HOUR, None),
        (day + 18 * HOUR - 1, None),
        (day + 18 * HOUR, "hours"),
    ):
        monkeypatch.setattr(store, "_clock", At(at))
        found = store.examine(secret)
        assert found == refusal if refusal else isinstance(found, Principal), at
        if isinstance(found, Principal):
            assert timely(found, at) is None
            assert timely(found, day + 18 * HOUR) == "hours"


@pytest.mark.parametrize(
    ("text", "within", "without"),
    [
        ("08-18", [480, 1079], [479, 1080, 0]),
        ("22:30-06", [1350, 1439, 0, 359], [1349, 360]),
        ("00-24", [0, 1439], []),
        ("23-24", [1380, 1439], [0, 1379]),
    ],
)
def test_hours_are_minutes_of_the_day(text: str, within: list[int], without: list[int]) -> None:
    hours = checked_hours(text)
    assert all(hours.cover(1_700_006_400 + minute * 60) for minute in within)
    assert not any(hours.cover(1_700_006_400 + minute * 60 + 59.9) for minute in without)
    assert read_hours(str(hours)) == hours


@pytest.mark.parametrize(
    "text", ["8-18", "08-08", "24-08", "08-25", "08:60-09", "08-24:30", "", "08"]
)
def test_what_are_no_hours_is_refused_and_in_the_database_never(text: str) -> None:
    with pytest.raises(TrustError, match="are no hours"):
        checked_hours(text)
    assert read_hours(text) == NEVER
    assert not any(NEVER.cover(minute * 60) for minute in range(1440))
    assert read_hours(None) is None
    assert str(Hours(480, 1080)) == "08:00-18:00"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lifetime_seconds": 0}, "cannot live"),
        ({"lifetime_seconds": (LONGEST_HOURS + 1) * HOUR}, "cannot live"),
        ({"scope": checked_scope(["infer"])}, "bound to nothing"),
        ({"scope": checked_scope([], [], ["a/b"])}, "bound to nothing"),
        ({"scope": checked_scope(["admin"], [], ["a/b"])}, "cannot be given admin"),
        ({"scope": checked_scope(["infer"], ["nobodys"], ["a/b"])}, "no team 'nobodys'"),
    ],
)
def test_agents_without_bounds_are_not_made(
    store: TrustStore, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrustError, match=message):
        agent(store, **({"scope": ASK} | more))
    assert store.agents() == []


def test_only_users_have_agents(store: TrustStore) -> None:
    agent(store)
    store.add_service("crawler")
    for owner, what in (("scout", "an agent"), ("crawler", "a service")):
        with pytest.raises(TrustError, match=f"is no user but {what}"):
            store.create_agent("second", owner, lifetime_seconds=HOUR, scope=ASK)
    store.set_disabled("ada", disabled=True)
    with pytest.raises(TrustError, match="disabled"):
        store.create_agent("second", "ada", lifetime_seconds=HOUR, scope=ASK)


def test_its_name_is_its_own_and_may_be_used_again_for_the_same_user(store: TrustStore) -> None:
    first = agent(store)
    store.add_user("bea")
    for taken in ("research", "bea"):
        with pytest.raises(TrustError, match="already"):
            store.create_agent(taken, "ada", lifetime_seconds=HOUR, scope=ASK)
    for add in (store.add_user, store.add_service, store.add_team):
        with pytest.raises(TrustError, match="already"):
            add("scout")
    with pytest.raises(TrustError, match="at work"):
        store.create_agent("scout", "ada", lifetime_seconds=HOUR, scope=ASK)
    assert store.end_agent("scout")
    assert not store.end_agent("scout")
    assert store.examine(first) == "disabled"
    with pytest.raises(TrustError, match="somebody else"):
        store.create_agent("scout", "bea", lifetime_seconds=HOUR, scope=ASK)
    second = store.create_agent("scout", "ada", lifetime_seconds=HOUR, scope=ASK).secret
    assert store.authenticate(second)
    assert store.authenticate(first) is None
    assert [each["state"] for each in store.agents(owner="ada")] == ["valid"]
    assert store.agents(owner="bea") == []


def test_it_is_in_no_team_but_its_owners(store: TrustStore) -> None:
    agent(store)
    with pytest.raises(TrustError, match="is an agent"):
        store.add_member("research", "scout", "admin")
    with pytest.raises(TrustError, match="is an agent"):
        store.set_disabled("scout", disabled=True)
    with pytest.raises(TrustError, match="no agent but a user"):
        store.end_agent("ada")


def test_an_agent_that_the_database_tells_nothing_of_is_nobody(store: TrustStore) -> None:
    secret = agent(store)
    with store._engine.execution_options(writes=True).begin() as connection:
        connection.exec_driver_sql("DELETE FROM agent")
    store.forget()
    assert store.examine(secret) == "revoked"


def test_its_life_is_on_the_ledger_and_its_secret_is_not(store: TrustStore, tmp_path: Path) -> None:
    secret = agent(store, hours=checked_hours("22-06"))
    store.end_agent("scout")
    events: list[Any] = [entry["event"] for entry in read(tmp_path / "ledger")]
    made = next(each for each in events if each["action"] == "agent.create")
    assert (made["principal"], made["owner"], made["hours"]) == ("scout", "ada", "22:00-06:00")
    assert made["scope"] == {"verbs": ["infer"], "repositories": ["elsewhere/name"]}
    assert events[-1]["action"] == "agent.end"
    assert secret not in json.dumps(events)
