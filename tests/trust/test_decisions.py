from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest

import holdfast_profiles
from holdfast_trust.decisions import ACTIONS, ON_REPOSITORIES, Decisions, Resource
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import ROLES, Principal, Role
from holdfast_trust.scopes import VERBS, checked_scope, read_scope

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = {"jurisdiction": "de", "classification": "internal"}
ADA = Principal(1, "user", "ada", ("research",))
MODEL = Resource("model", "org/name", ("research",), LABELS)
DATASET = Resource("dataset", "org/name", ("research",), LABELS)
OWNED = Resource("model", "research/name", (), LABELS)


@pytest.fixture(scope="module")
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the policies to spoil."""
    return Path(shutil.copytree(str(holdfast_profiles.folder("policy")), tmp_path / "policy"))


def principal(kind: str, *teams: str) -> Principal:
    return Principal(7, kind, "somebody", teams)  # type: ignore[arg-type]  # from test tables


def member(role: Role, team: str = "research", **more: Any) -> Principal:
    return Principal(2, "user", "bea", (team,), roles={team: role, "bea": "admin"}, **more)


@pytest.mark.parametrize(
    ("kind", "team", "action", "resource", "allowed"),
    [
        ("user", "research", "model:read", MODEL, True),
        ("user", "research", "model:discover", MODEL, True),
        ("service", "research", "model:read", MODEL, True),
        ("user", "research", "dataset:read", DATASET, True),
        ("user", "research", "model:infer", MODEL, True),
        ("user", "other", "model:read", MODEL, False),
        ("user", "other", "model:discover", MODEL, False),
        ("user", "other", "dataset:read", DATASET, False),
        ("user", "other", "model:infer", MODEL, False),
        ("service", "serving", "model:read", MODEL, True),
        ("service", "serving", "dataset:read", DATASET, False),
        ("service", "serving", "model:infer", MODEL, False),
        ("user", "serving", "model:read", MODEL, False),
        ("user", "operators", "model:read", MODEL, False),
        ("user", "operators", "model:infer", MODEL, False),
        ("user", "operators", "model:admin", MODEL, False),
        ("user", "operators", "model:approve", MODEL, True),
        ("service", "operators", "model:approve", MODEL, False),
        ("user", "reviewers", "model:approve", MODEL, True),
        ("user", "reviewers", "model:read", MODEL, True),
        ("user", "reviewers", "model:write", MODEL, False),
        ("user", "reviewers", "dataset:read", DATASET, False),
        ("user", "research", "model:approve", MODEL, False),
    ],
)
def test_who_may_do_what(  # noqa: PLR0913 - a row of the table has six cells
    decisions: Decisions, kind: str, team: str, action: str, resource: Resource, *, allowed: bool
) -> None:
    decision = decisions.decide(principal(kind, team), action, resource)
    assert decision.allowed is allowed, decision.reason
    assert bool(decision.policies) is allowed
    assert decision.policy_version == decisions.version


WHAT_A_ROLE_MAY = {
    "read": {"discover", "read"},
    "contribute": {"discover", "read", "contribute"},
    "write": {"discover", "read", "contribute", "write", "create"},
    "admin": {"discover", "read", "contribute", "write", "create", "admin"},
}


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("role", ROLES)
def test_a_role_includes_those_before_it(decisions: Decisions, kind: str, role: Role) -> None:
    def may(resource: Resource) -> set[str]:
        return {
            verb
            for verb in ON_REPOSITORIES
            if decisions.decide(member(role), f"{kind}:{verb}", resource).allowed
        }

    owned = replace(OWNED, kind=kind)  # type: ignore[arg-type]  # from the table
    assert may(owned) == WHAT_A_ROLE_MAY[role]
    assert may(replace(owned, id="bea/own")) == set(ON_REPOSITORIES), "a namespace of one's own"
    assert may(replace(owned, id="ada/own")) == set()
    opened = may(replace(owned, id="elsewhere/name", team_readers=("research",)))
    assert opened == WHAT_A_ROLE_MAY[role] - {"write", "create", "admin"}


def test_what_is_not_private_is_everybodys_to_read_unless_its_label_is_strict(
    decisions: Decisions,
) -> None:
    opened = Resource("model", "org/name", (), LABELS, private=False)
    stranger = principal("user", "other")
    assert decisions.decide(stranger, "model:read", opened).policies == ("repository.open",)
    assert not decisions.decide(stranger, "model:contribute", opened).allowed
    assert not decisions.decide(stranger, "model:read", replace(opened, private=True)).allowed
    for strict in ("confidential", "secret", "Internal"):
        labelled = replace(opened, labels=LABELS | {"classification": strict})
        assert not decisions.decide(stranger, "model:read", labelled).allowed


def test_a_gated_repository_is_discovered_by_readers_and_read_by_who_was_let_in(
    decisions: Decisions,
) -> None:
    gated = Resource("model", "org/name", ("research",), LABELS, private=False, gated=True)
    for reader in (ADA, principal("user", "other"), principal("service", "reviewers")):
        assert decisions.decide(reader, "model:discover", gated).allowed
        refused = decisions.decide(reader, "model:read", gated)
        assert refused.policies == ("repository.gated",)
        assert decisions.decide(reader, "model:read", gated, admitted=True).allowed
    closed = replace(gated, private=True)
    assert not decisions.decide(
        principal("user", "other"), "model:read", closed, admitted=True
    ).allowed, "being let in opens the gate, not the repository"
    exempted = (("user", "org"), ("service", "serving"), ("user", "reviewers"))
    for exempt in (principal(*each) for each in exempted):
        assert decisions.decide(exempt, "model:read", gated).allowed
    own = replace(gated, id="bea/name", team_readers=())
    assert decisions.decide(member("read"), "model:read", own).allowed


@pytest.mark.parametrize(
    ("verbs", "left"),
    [
        (("read",), {"discover", "read"}),
        (("contribute",), {"discover", "read", "contribute"}),
        (("write",), {"discover", "read", "contribute", "write", "create"}),
        (("admin",), {*ON_REPOSITORIES, "approve"}),
        (("infer",), {"infer"}),
        (("read", "infer"), {"discover", "read", "infer"}),
        ((), {*ON_REPOSITORIES, "approve", "infer"}),
    ],
)
def test_a_token_carries_the_verbs_it_was_given(
    decisions: Decisions, verbs: tuple[str, ...], left: set[str]
) -> None:
    everything = Principal(
        2,
        "user",
        "bea",
        ("operators", "research"),
        roles={"research": "admin", "operators": "read"},
        scope=checked_scope(verbs),
    )
    resource = replace(OWNED, team_readers=("research",))
    allowed = {
        action.partition(":")[2]
        for action in ACTIONS
        if action.startswith("model:") and decisions.decide(everything, action, resource).allowed
    }
    assert allowed == left


@pytest.mark.parametrize(
    ("repositories", "name", "allowed"),
    [
        (("research/name",), "research/name", True),
        (("research/name",), "research/Name", True),
        (("Research/Name",), "research/name", True),
        (("research/*",), "research/name", True),
        (("research/name",), "research/other", False),
        (("researchers/*",), "research/name", False),
        (("other/*",), "research/name", False),
        (("other/*", "research/name"), "research/name", True),
    ],
)
def test_a_token_reaches_the_repositories_it_names(
    decisions: Decisions, repositories: tuple[str, ...], name: str, *, allowed: bool
) -> None:
    bound = member("admin", scope=checked_scope(repositories=repositories))
    for opened in (True, False):
        resource = replace(OWNED, id=name, private=opened)
        for verb in ON_REPOSITORIES:
            decision = decisions.decide(bound, f"model:{verb}", resource)
            assert decision.allowed is allowed
            if not allowed:
                assert decision.policies == ("token.other-repository",)


def test_a_token_never_carries_more_than_its_owner_may(decisions: Decisions) -> None:
    wide = checked_scope(VERBS, ["org"], ["org/*"])
    stranger = Principal(7, "user", "somebody", ("other",), scope=wide)
    for action in ACTIONS:
        kind = action.partition(":")[0]
        resource = replace(MODEL, kind=kind)  # type: ignore[arg-type]  # model or dataset
        assert not decisions.decide(stranger, action, resource).allowed


def test_a_scope_that_cannot_be_understood_permits_nothing(decisions: Decisions) -> None:
    broken = member("admin", scope=read_scope("{"))
    for verb in ON_REPOSITORIES:
        assert not decisions.decide(broken, f"model:{verb}", OWNED).allowed


def test_a_decision_names_its_grounds(decisions: Decisions) -> None:
    decision = decisions.decide(ADA, "model:read", MODEL)
    assert decision.policies == ("repository.readers-read",)
    assert decision.reason == "permitted by repository.readers-read"
    assert decisions.decide(principal("user"), "model:read", MODEL).reason == "no policy permits it"


@pytest.mark.parametrize("action", ["", "model:delete", "model:read ", "MODEL:READ", 'x"::y', "\n"])
def test_an_unknown_action_is_denied(decisions: Decisions, action: str) -> None:
    for resource in (MODEL, DATASET):
        decision = decisions.decide(principal("user", "operators", "research"), action, resource)
        assert not decision.allowed
        assert "does not exist in the supplied schema" in decision.reason


def test_an_action_on_the_wrong_kind_of_thing_is_denied(decisions: Decisions) -> None:
    everyone = principal("user", "operators", "research")
    assert not decisions.decide(everyone, "dataset:read", MODEL).allowed
    assert not decisions.decide(everyone, "model:read", DATASET).allowed
    for group in ON_REPOSITORIES:
        assert not decisions.decide(everyone, group, MODEL).allowed, "a group is no action"


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"jurisdiction": "de"},
        {"classification": "internal"},
        {"jurisdiction": "", "classification": "internal"},
        {"jurisdiction": "de", "classification": ""},
    ],
)
def test_an_unlabelled_model_is_denied_to_all(decisions: Decisions, labels: dict[str, str]) -> None:
    for somebody in (ADA, member("admin", "org"), principal("service", "serving")):
        for action in ACTIONS:
            kind = action.partition(":")[0]
            resource = Resource(kind, "org/name", ("research",), labels, private=False)  # type: ignore[arg-type]  # model or dataset
            decision = decisions.decide(somebody, action, resource)
            assert not decision.allowed
            assert decision.reason.startswith("unlabelled: org/name has no ")


def test_a_model_without_readers_is_nobodys(decisions: Decisions) -> None:
    assert not decisions.decide(ADA, "model:read", Resource("model", "x/y", (), LABELS)).allowed


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a::b", "ä", 'x" in Holdfast::Team::"operators'])
def test_names_are_data_never_policy(decisions: Decisions, name: str) -> None:
    odd = Principal(1, "user", name, ("research",))
    assert decisions.decide(odd, "model:read", MODEL).allowed
    assert not decisions.decide(odd, "model:approve", MODEL).allowed
    named = Resource("model", name, ("research",), LABELS)
    assert decisions.decide(ADA, "model:read", named).allowed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "extra.cedar").write_text("permit ("),
        lambda folder: (folder / "extra.cedar").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "extra.cedar").write_text(
            "permit (principal, action, resource is Holdfast::Model) when { resource.raeders };"
        ),
        lambda folder: (folder / "extra.cedar").write_text(
            'permit (principal, action == Holdfast::Action::"model:delete", resource);'
        ),
        lambda folder: (folder / "extra.cedar").write_text(
            'permit (principal, action, resource == Holdfast :: Model::"org/name");'
        ),
        *(
            lambda folder, when=when: (folder / "extra.cedar").write_text(
                f"forbid (principal, action, resource) when {{ {when} }};"
            )
            for when in (
                'resource.owner == Holdfast::Team::"org"',
                '[Holdfast::Team::"org"].contains(resource.owner)',
                'resource.name == "org/name"',
                'resource.namespace like "org*"',
            )
        ),
        lambda folder: (folder / "holdfast.cedarschema").write_text("namespace {"),
        lambda folder: (folder / "holdfast.cedarschema").unlink(),
        lambda folder: (folder / "second.cedarschema").write_text("entity X;"),
        lambda folder: [file.unlink() for file in folder.glob("*.cedar")],
        shutil.rmtree,
    ],
)
def test_policies_that_are_unsound_start_nothing(
    policies: Path, spoil: Callable[[Path], Any]
) -> None:
    assert Decisions(policies).decide(ADA, "model:read", MODEL).allowed
    spoil(policies)
    with pytest.raises(TrustError, match="nothing can be permitted") as caught:
        Decisions(policies)
    assert str(policies) in str(caught.value)
    assert caught.value.cause


def test_a_policy_that_fails_while_deciding_is_a_deny(policies: Path) -> None:
    # It parses and validates; Cedar would leave the failing forbid out and answer Allow.
    (policies / "extra.cedar").write_text(
        "forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };"
    )
    decision = Decisions(policies).decide(ADA, "model:read", MODEL)
    assert not decision.allowed
    assert decision.reason.startswith("policy error: ")
    assert "overflow" in decision.reason


def test_whatever_fails_is_a_deny(decisions: Decisions, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(cedarpy, "is_authorized", fails)
    decision = decisions.decide(ADA, "model:read", MODEL)
    assert not decision.allowed
    assert decision.reason == "the decision failed: out of luck"


def test_a_principal_of_no_known_kind_is_denied(decisions: Decisions) -> None:
    assert not decisions.decide(principal("robot", "research"), "model:read", MODEL).allowed


def test_a_forbid_wins_and_is_named(policies: Path) -> None:
    (policies / "extra.cedar").write_text(
        '@id("site.no-ada") forbid (principal == Holdfast::User::"ada", action, resource);'
    )
    decision = Decisions(policies).decide(ADA, "model:read", MODEL)
    assert not decision.allowed
    assert decision.policies == ("site.no-ada",)
    assert decision.reason == "forbidden by site.no-ada"


def test_the_version_changes_with_every_byte_and_nothing_else(policies: Path) -> None:
    first = Decisions(policies).version
    assert first.startswith("sha256:")
    assert Decisions(policies).version == first == Decisions().version
    (policies / "README").write_text("not a policy")
    assert Decisions(policies).version == first
    with (policies / "models.cedar").open("a") as file:
        file.write("\n")
    assert Decisions(policies).version != first


def test_the_schema_alone_denies_what_has_no_labels() -> None:
    # Decisions asks too; this is what stands behind it for other users of the policy set.
    folder = holdfast_profiles.folder("policy")
    schema = (folder / "holdfast.cedarschema").read_text(encoding="utf-8")
    text = (folder / "repositories.cedar").read_text(encoding="utf-8")
    team = {"__entity": {"type": "Holdfast::Team", "id": "research"}}
    roles: dict[str, object] = {"contributes": [], "writes": [], "administers": []}
    shape = {"owner": team, "readers": [], "private": True, "gated": False}
    shape |= {"name": "research/y", "namespace": "research/*"}

    def ask(attributes: dict[str, object]) -> cedarpy.AuthzResult:
        entities: list[dict[str, object]] = [
            {
                "uid": {"type": "Holdfast::User", "id": "ada"},
                "attrs": roles,
                "parents": [{"type": "Holdfast::Team", "id": "research"}],
            },
            {
                "uid": {"type": "Holdfast::Model", "id": "research/y"},
                "attrs": {**shape, **attributes},
                "parents": [],
            },
        ]
        request = {
            "principal": {"type": "Holdfast::User", "id": "ada"},
            "action": {"type": "Holdfast::Action", "id": "model:read"},
            "resource": {"type": "Holdfast::Model", "id": "research/y"},
            "context": {"verbs": ["read"], "admitted": False},
        }
        return cedarpy.is_authorized(request, text, entities, schema)

    assert ask(dict(LABELS)).allowed
    assert not ask({"jurisdiction": "de"}).allowed
    assert not ask({"jurisdiction": "de", "classification": ""}).allowed


def test_every_policy_has_a_name_of_its_own() -> None:
    names = []
    for file in holdfast_profiles.folder("policy").iterdir():
        if file.name.endswith(".cedar"):
            text = file.read_text(encoding="utf-8")
            names += [line.split('"')[1] for line in text.splitlines() if line.startswith("@id(")]
            assert text.count("@id(") == text.count("permit (") + text.count("forbid (")
    assert len(names) == len(set(names)) == 18


def test_every_action_is_in_the_schema() -> None:
    schema = (holdfast_profiles.folder("policy") / "holdfast.cedarschema").read_text(
        encoding="utf-8"
    )
    assert all(f'action "{action}"' in schema for action in ACTIONS)
    assert schema.count('\n  action "') == len(ACTIONS)
