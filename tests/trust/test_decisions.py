from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest

import holdfast_profiles
from holdfast_trust.decisions import ACTIONS, Decisions, Resource
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Principal

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = {"jurisdiction": "de", "classification": "internal"}
ADA = Principal(1, "user", "ada", ("research",))
MODEL = Resource("model", "org/name", ("research",), LABELS)
PLATFORM = Resource("platform", "site")


@pytest.fixture(scope="module")
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the policies to spoil."""
    return Path(shutil.copytree(str(holdfast_profiles.folder("policy")), tmp_path / "policy"))


def principal(kind: str, *teams: str) -> Principal:
    return Principal(7, kind, "somebody", teams)  # type: ignore[arg-type]  # from test tables


@pytest.mark.parametrize(
    ("kind", "team", "action", "resource", "allowed"),
    [
        ("user", "research", "model:read", MODEL, True),
        ("service", "research", "model:read", MODEL, True),
        ("user", "research", "model:infer", MODEL, True),
        ("user", "research", "model:import", MODEL, False),
        ("user", "research", "admin:write", PLATFORM, False),
        ("user", "other", "model:read", MODEL, False),
        ("user", "other", "model:infer", MODEL, False),
        ("service", "serving", "model:read", MODEL, True),
        ("service", "serving", "model:infer", MODEL, False),
        ("user", "serving", "model:read", MODEL, False),
        ("user", "operators", "model:import", MODEL, True),
        ("user", "operators", "admin:write", PLATFORM, True),
        ("user", "operators", "model:read", MODEL, False),
        ("user", "operators", "model:infer", MODEL, False),
    ],
)
def test_who_may_do_what(  # noqa: PLR0913 - a row of the table has six cells
    decisions: Decisions, kind: str, team: str, action: str, resource: Resource, *, allowed: bool
) -> None:
    decision = decisions.decide(principal(kind, team), action, resource)
    assert decision.allowed is allowed, decision.reason
    assert bool(decision.policies) is allowed
    assert decision.policy_version == decisions.version


def test_a_decision_names_its_grounds(decisions: Decisions) -> None:
    decision = decisions.decide(ADA, "model:read", MODEL)
    assert decision.policies == ("model.team-reads",)
    assert decision.reason == "permitted by model.team-reads"
    assert decisions.decide(principal("user"), "model:read", MODEL).reason == "no policy permits it"


@pytest.mark.parametrize("action", ["", "model:delete", "model:read ", "MODEL:READ", 'x"::y', "\n"])
def test_an_unknown_action_is_denied(decisions: Decisions, action: str) -> None:
    for resource in (MODEL, PLATFORM):
        decision = decisions.decide(principal("user", "operators", "research"), action, resource)
        assert not decision.allowed
        assert "is not declared in the schema" in decision.reason


def test_an_action_on_the_wrong_kind_of_thing_is_denied(decisions: Decisions) -> None:
    everyone = principal("user", "operators", "research")
    assert not decisions.decide(everyone, "admin:write", MODEL).allowed
    assert not decisions.decide(everyone, "model:read", PLATFORM).allowed


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
    resource = Resource("model", "org/name", ("research",), labels)
    for somebody in (ADA, principal("service", "serving"), principal("user", "operators")):
        for action in ACTIONS:
            decision = decisions.decide(somebody, action, resource)
            assert not decision.allowed
            assert decision.reason.startswith("unlabelled: org/name has no ")


def test_a_model_without_readers_is_nobodys(decisions: Decisions) -> None:
    assert not decisions.decide(ADA, "model:read", Resource("model", "x/y", (), LABELS)).allowed


@pytest.mark.parametrize("name", ['a"b', "a\nb", "a::b", "ä", 'x" in Holdfast::Team::"operators'])
def test_names_are_data_never_policy(decisions: Decisions, name: str) -> None:
    odd = Principal(1, "user", name, ("research",))
    assert decisions.decide(odd, "model:read", MODEL).allowed
    assert not decisions.decide(odd, "model:import", MODEL).allowed
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
    assert not decisions.decide(principal("agent", "research"), "model:read", MODEL).allowed


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
    # Decisions asks first; this is what stands behind it for other users of the policy set.
    folder = holdfast_profiles.folder("policy")
    schema = (folder / "holdfast.cedarschema").read_text(encoding="utf-8")
    text = (folder / "models.cedar").read_text(encoding="utf-8")

    def ask(attributes: dict[str, object]) -> cedarpy.AuthzResult:
        readers = [{"__entity": {"type": "Holdfast::Team", "id": "research"}}]
        entities: list[dict[str, object]] = [
            {
                "uid": {"type": "Holdfast::User", "id": "ada"},
                "attrs": {},
                "parents": [{"type": "Holdfast::Team", "id": "research"}],
            },
            {
                "uid": {"type": "Holdfast::Model", "id": "x/y"},
                "attrs": {**attributes, "readers": readers},
                "parents": [],
            },
        ]
        request = {
            "principal": {"type": "Holdfast::User", "id": "ada"},
            "action": {"type": "Holdfast::Action", "id": "model:read"},
            "resource": {"type": "Holdfast::Model", "id": "x/y"},
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
    assert len(names) == len(set(names)) == 6


def test_every_action_is_in_the_schema() -> None:
    schema = (holdfast_profiles.folder("policy") / "holdfast.cedarschema").read_text(
        encoding="utf-8"
    )
    assert all(f'action "{action}"' in schema for action in ACTIONS)
    assert schema.count("\n  action ") == len(ACTIONS)
