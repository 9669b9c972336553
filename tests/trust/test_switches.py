"""The kill switches: what they stop at the door, who may be named, what is recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import read
from holdfast_trust.scopes import checked_scope
from holdfast_trust.store import TrustStore
from holdfast_trust.switches import KINDS, SwitchKind

if TYPE_CHECKING:
    from pathlib import Path

ASK = checked_scope(["infer"], [], ["org/name"])


@pytest.fixture
def tokens(store: TrustStore) -> dict[str, str]:
    """Return the secrets of ada, of her agent scout, of bea and of the service crawler."""
    store.add_user("ada", ("research",))
    store.add_user("bea", ("research",))
    store.add_service("crawler")
    secrets = {name: store.issue_token(name).secret for name in ("ada", "bea", "crawler")}
    made = store.create_agent("scout", "ada", lifetime_seconds=3600, scope=ASK)
    return secrets | {"scout": made.secret}


def stopped(store: TrustStore, tokens: dict[str, str]) -> set[str]:
    return {name for name, secret in tokens.items() if store.examine(secret) == "stopped"}


@pytest.mark.parametrize(
    ("kind", "name", "whom"),
    [
        ("agent", "scout", {"scout"}),
        ("user", "ada", {"ada", "scout"}),
        ("service", "crawler", {"crawler"}),
        ("team", "research", set()),  # its members are who they are: the gateway bars what it pays
        ("model", "org/name", set()),
    ],
)
def test_a_switch_bars_whom_it_names_and_lets_them_in_again(
    store: TrustStore, tokens: dict[str, str], kind: SwitchKind, name: str, whom: set[str]
) -> None:
    assert stopped(store, tokens) == set()
    before = {each: store.authenticate(secret) for each, secret in tokens.items()}
    count = store.changes()
    assert store.kill(kind, name, "because")
    assert not store.kill(kind, name, "again")
    assert store.changes() > count
    assert stopped(store, tokens) == whom
    for each, principal in before.items():
        assert principal is not None
        assert store.still_valid(principal) == (each not in whom)
    for each in whom:
        switch = store.stopped_by(tokens[each])
        assert switch is not None
        assert (switch.kind, switch.name, switch.reason, switch.by) == (
            kind,
            name,
            "because",
            "tester",
        )
    assert [each.name for each in store.switches()] == [name]
    assert store.lift(kind, name)
    assert not store.lift(kind, name)
    assert store.switches() == []
    assert store.switches(lifted=True)[0].lifted_at is not None
    assert stopped(store, tokens) == set()
    assert store.kill(kind, name)
    assert stopped(store, tokens) == whom


def test_a_key_is_one_token_and_a_new_one_is_another(
    store: TrustStore, tokens: dict[str, str]
) -> None:
    principal = store.authenticate(tokens["ada"])
    assert principal is not None
    second = store.issue_token("ada", "second").secret
    store.kill("key", principal.token_id)
    assert stopped(store, tokens) == {"ada"}
    assert store.authenticate(second)
    assert store.tokens("ada")[0]["state"] == "stopped"
    rotated = store.issue_token("ada", rotate=True).secret
    assert store.authenticate(rotated)
    assert store.lift("key", principal.token_id)


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("agent", "nobody", "no user or service 'nobody'"),
        ("agent", "ada", "ada is no agent"),
        ("user", "scout", "scout is no user"),
        ("service", "ada", "ada is no service"),
        ("team", "ada", "no team 'ada'"),
        ("key", "ada", "no token 'ada'"),
        ("model", "research", "is no model"),
        ("model", "a/b\nc", "is no model"),
    ],
)
def test_an_order_with_a_mistake_says_so(
    store: TrustStore, tokens: dict[str, str], kind: SwitchKind, name: str, problem: str
) -> None:
    assert tokens
    with pytest.raises(TrustError, match=problem):
        store.kill(kind, name)
    assert store.switches() == []


@pytest.mark.parametrize("reason", ["x" * 501, "a\nb", "a\x1b[31m"])
def test_a_reason_can_be_told(store: TrustStore, reason: str) -> None:
    with pytest.raises(TrustError, match="cannot be told"):
        store.kill("team", "research", reason)


def test_every_kind_is_tested_here() -> None:
    assert set(KINDS) == {"agent", "key", "user", "service", "team", "model"}


def test_orders_are_on_the_ledger(store: TrustStore, tmp_path: Path) -> None:
    store.kill("team", "research", "budget")
    store.lift("team", "research")
    events = [entry["event"] for entry in read(tmp_path / "ledger")][-2:]
    assert events == [
        {
            "action": "kill.throw",
            "kind": "team",
            "name": "research",
            "reason": "budget",
            "actor": "tester",
        },
        {"action": "kill.lift", "kind": "team", "name": "research", "actor": "tester"},
    ]


def test_a_switch_holds_for_who_opens_the_database_later(
    store: TrustStore, tokens: dict[str, str], database_url: str
) -> None:
    store.kill("user", "ada")
    later = TrustStore(database_url)
    assert later.examine(tokens["scout"]) == "stopped"
    later.close()


def test_each_change_is_counted_and_what_changes_nothing_is_not(store: TrustStore) -> None:
    store.add_user("ada")
    count = store.changes()
    assert not store.add_user("ada")
    assert store.changes() == count
    for change in (
        lambda: store.add_member("research", "ada"),
        lambda: store.issue_token("ada"),
        lambda: store.remove_member("research", "ada"),
        lambda: store.revoke_all("ada"),
        lambda: store.set_disabled("ada", disabled=True),
    ):
        change()
        assert store.changes() == count + 1
        count += 1


def test_many_are_proven_at_once(store: TrustStore, tokens: dict[str, str]) -> None:
    ids = {each["principal"]: str(each["id"]) for each in store.tokens()}
    store.kill("agent", "scout")
    store.revoke_token(ids["bea"])
    found = store.recall_all([*ids.values(), "0" * 16])
    ada = store.authenticate(tokens["ada"])
    assert found[ids["ada"]] == ada
    assert (found[ids["scout"]], found[ids["bea"]]) == ("stopped", "revoked")
    assert found["0" * 16] == "revoked"
