"""What Cedar is asked about repositories, and what callers are told, on both databases."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.access import AccessEvent, Verb, Verdict
from holdfast_hub_protocol.access_requests import access_requests
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MetadataStore
from holdfast_hub_protocol.records import Repository
from holdfast_hub_protocol.schema import open_engine
from holdfast_model_registry.lineage_labels import inherited_labels
from holdfast_model_registry.policy import CedarAuthorizer, LedgerObserver, TrustDirectory
from holdfast_model_registry.readers import (
    access,
    adopt_old_table,
    classify,
    put_access,
    read_access,
)
from holdfast_model_registry.replication_access import Replica, ReplicaAuthorizer
from holdfast_trust.decisions import Decision, Decisions, Resource
from holdfast_trust.ledger import Ledger, read
from holdfast_trust.principals import Principal
from holdfast_trust.scopes import Scope, checked_scope
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = {"jurisdiction": "de", "classification": "internal"}
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def person(name: str, scope: Scope | None = None, **roles: Any) -> Principal:
    teams = tuple(sorted(roles))
    return Principal(1, "user", name, teams, roles={**roles, name: "admin"}, scope=scope)


ADA = person("ada", research="admin")
BEN = person("ben", research="read")
EVE = person("eve", other="write")


@dataclass
class Counting(Decisions):
    """Counts what it is asked."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def decide(
        self, principal: Principal, action: str, resource: Resource, *, admitted: bool = False
    ) -> Decision:
        self.asked.append((action, resource.id))
        return super().decide(principal, action, resource, admitted=admitted)


@dataclass
class Desk:
    metadata: MetadataStore
    decisions: Counting
    authorizer: CedarAuthorizer

    def make(
        self,
        name: str,
        teams: tuple[str, ...] = (),
        labels: dict[str, str] | None = None,
        **columns: Any,
    ) -> Repository:
        identifier = RepositoryId.parse(name, columns.pop("kind", "model"))
        with self.metadata.engine.begin() as connection:
            made = connection.execute(
                schema.repositories.insert().values(
                    kind=identifier.kind,
                    namespace=identifier.namespace,
                    name=identifier.name,
                    folded=identifier.folded,
                    created_at=MOMENT,
                    updated_at=MOMENT,
                    **columns,
                )
            )
            assert made.inserted_primary_key is not None
            if labels != {}:
                key = made.inserted_primary_key[0]
                put_access(connection, key, teams=teams, labels=labels or LABELS)
        found = self.metadata.repository(identifier)
        assert found is not None
        return found

    def may(self, caller: Principal, verb: str, repository: Repository) -> Verdict:
        return self.authorizer.may(caller, Verb(verb), repository.id, repository)

    def verbs(self, caller: Principal, repository: Repository) -> list[str]:
        return [verb for verb in Verb if self.may(caller, verb, repository).allowed]

    def let_in(self, repository: Repository, name: str, status: str, reason: str = "") -> None:
        with self.metadata.engine.begin() as connection:
            connection.execute(access_requests.delete())
            connection.execute(
                access_requests.insert().values(
                    repository_id=repository.key,
                    name=name,
                    request_id="r",
                    status=status,
                    asked_at=MOMENT,
                    reason=reason,
                    decided_by="",
                )
            )


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    url = f"sqlite:///{tmp_path}/registry.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    metadata = MetadataStore(open_engine(url))
    metadata.create_schema()
    decisions = Counting()
    yield Desk(metadata, decisions, CedarAuthorizer(decisions, metadata.engine, "de"))
    metadata.engine.dispose()


def test_roles_readers_and_strangers(desk: Desk) -> None:
    owned = desk.make("research/own")
    opened = desk.make("upstream/opened", ("research",))
    every = list(Verb)
    assert desk.verbs(ADA, owned) == every
    assert desk.verbs(BEN, owned) == ["discover", "read"]
    assert desk.verbs(EVE, owned) == []
    assert desk.verbs(ADA, opened) == ["discover", "read", "contribute"]
    assert desk.verbs(BEN, opened) == ["discover", "read"]
    assert desk.verbs(EVE, desk.make("eve/own")) == every
    assert desk.verbs(ADA, desk.make("eve/other")) == []
    assert desk.verbs(EVE, desk.make("upstream/open", private=False)) == ["discover", "read"]
    dataset = desk.make("research/data", kind="dataset")
    assert (desk.verbs(ADA, dataset), desk.verbs(EVE, dataset)) == (every, [])
    told = desk.may(BEN, "write", owned)
    assert told.message == (
        "You may not write in research/own: that takes a role in research, "
        "and your role there is read"
    )
    assert "you are not in it" in desk.may(BEN, "write", opened).message
    assert desk.may(EVE, "read", owned).reason == "no policy permits it"


@pytest.mark.parametrize("labels", [{}, {"jurisdiction": "de"}, {"classification": "internal"}])
def test_what_lacks_a_label_is_nobodys(desk: Desk, labels: dict[str, str]) -> None:
    unlabelled = desk.make("research/own", ("research",), labels, private=False)
    assert desk.verbs(ADA, unlabelled) == []
    assert "unlabelled" in desk.may(ADA, "read", unlabelled).reason
    assert desk.authorizer.readable(ADA, [unlabelled]) == []


def test_a_denial_takes_the_steps_of_an_absence(desk: Desk) -> None:
    gated = desk.make("research/gated", gated="manual")
    hidden = [desk.make("research/own"), desk.make("research/bare", (), {}), gated]
    statements: list[str] = []

    @event.listens_for(desk.metadata.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    def steps(name: str, repository: Repository | None, verb: Verb) -> tuple[int, int]:
        statements.clear()
        desk.decisions.asked.clear()
        verdict = desk.authorizer.may(EVE, verb, RepositoryId.parse(name), repository)
        assert not verdict.allowed
        return len(statements), len(desk.decisions.asked)

    for verb in Verb:
        absent = steps("research/absent", None, verb)
        assert absent == (1, 1)
        for repository in hidden:
            assert steps(str(repository.id), repository, verb) == absent


def test_an_absent_repository_is_absent_for_its_owner_too(desk: Desk) -> None:
    name = RepositoryId.parse("research/absent")
    assert not any(desk.authorizer.may(ADA, verb, name, None).allowed for verb in Verb)


def test_a_gate_holds_until_one_is_let_in(desk: Desk) -> None:
    gated = desk.make("upstream/gated", ("other",), gated="manual")
    assert desk.verbs(EVE, gated) == ["discover"]
    told = desk.may(EVE, "read", gated)
    assert told.policies == ("repository.gated",)
    assert told.message == (
        "Access to model upstream/gated is restricted and you are not in the authorized list. "
        "Ask for access: POST /upstream/gated/ask-access"
    )
    desk.let_in(gated, "eve", "pending")
    assert "awaiting a review" in desk.may(EVE, "read", gated).message
    desk.let_in(gated, "eve", "rejected", "not this year")
    assert desk.may(EVE, "read", gated).message.endswith("has been rejected: not this year")
    desk.let_in(gated, "eve", "accepted")
    assert desk.verbs(EVE, gated) == ["discover", "read", "contribute"]
    assert desk.verbs(BEN, gated) == [], "being let in is not being able to see it"
    desk.let_in(gated, "ben", "accepted")
    assert desk.verbs(BEN, gated) == []
    assert desk.verbs(EVE, gated) == ["discover"]
    own = desk.make("research/gated", gated="auto")
    assert desk.verbs(BEN, own) == ["discover", "read"], "its own team needs no letting in"
    narrow = replace(EVE, scope=checked_scope(["infer"]))
    assert "does not carry this right" in desk.may(narrow, "discover", gated).message


def test_new_repositories_are_labelled_and_their_teams_own(desk: Desk) -> None:
    writer = person("wes", research="write")
    for caller, name, allowed in (
        (writer, "research/new", True),
        (writer, "wes/new", True),
        (writer, "Research/new", False),
        (writer, "other/new", False),
        (BEN, "research/new", False),
        (replace(writer, scope=checked_scope(["read"])), "research/new", False),
        (replace(writer, scope=checked_scope(["write"])), "research/new", True),
        (replace(writer, scope=checked_scope(repositories=["research/new"])), "research/new", True),
        (replace(writer, scope=checked_scope(repositories=["research/x"])), "research/new", False),
    ):
        for kind in ("model", "dataset"):
            verdict = desk.authorizer.may_create(caller, RepositoryId.parse(name, kind))
            assert (verdict.allowed, not verdict.message) == (allowed, allowed), verdict
    made = desk.make("research/new", (), {})
    with desk.metadata.engine.begin() as connection:
        desk.authorizer.created(connection, made.key, made.id, writer)
    assert read_access(desk.metadata.engine, [made.key])[made.key].labels == LABELS
    assert desk.verbs(BEN, made) == ["discover", "read"]
    assert desk.verbs(EVE, made) == []


def test_without_a_jurisdiction_nothing_is_made(desk: Desk) -> None:
    bare = CedarAuthorizer(desk.decisions, desk.metadata.engine)
    verdict = bare.may_create(ADA, RepositoryId.parse("research/new"))
    assert not verdict.allowed
    assert "has set no jurisdiction" in verdict.message


def test_who_may_approve(desk: Desk) -> None:
    model = desk.make("research/own")
    for caller, allowed in (
        (person("rae", reviewers="read"), True),
        (person("olu", operators="read"), True),
        (person("rae", checked_scope(["read"]), reviewers="read"), False),
        (ADA, False),
    ):
        verdict = desk.authorizer.may_approve(caller, model)
        assert (verdict.allowed, not verdict.message) == (allowed, allowed)


def test_a_listing_shows_what_may_be_discovered_in_order(desk: Desk) -> None:
    gated = desk.make("upstream/gated", ("other",), gated="manual")
    made = [
        desk.make("research/a"),
        gated,
        desk.make("other/b"),
        desk.make("upstream/open", private=False),
        desk.make("upstream/strict", (), LABELS | {"classification": "secret"}, private=False),
        desk.make("research/data", kind="dataset"),
    ]

    def names(caller: Principal) -> list[str]:
        return [str(each.id) for each in desk.authorizer.readable(caller, made)]

    assert names(EVE) == ["upstream/gated", "other/b", "upstream/open"]
    assert names(BEN) == ["research/a", "upstream/open", "research/data"]
    bound = replace(EVE, scope=checked_scope(repositories=["other/b", "upstream/gated"]))
    assert names(bound) == ["upstream/gated", "other/b"]
    assert names(replace(EVE, scope=checked_scope(repositories=["other/*"]))) == ["other/b"]
    assert names(replace(EVE, scope=checked_scope(["infer"]))) == []
    assert names(EVE) == ["upstream/gated", "other/b", "upstream/open"]
    assert names(replace(EVE, teams=(), roles={})) == ["upstream/open"], "no longer in the team"


def test_ten_thousand_repositories_take_a_decision_for_each_sort_of_them(desk: Desk) -> None:
    rows = [
        {"id": key, "kind": "model", "namespace": f"team-{key % 20}", "name": f"m{key}"}
        for key in range(1, 10_001)
    ]
    stamps = {"created_at": MOMENT, "updated_at": MOMENT}
    with desk.metadata.engine.begin() as connection:
        connection.execute(
            schema.repositories.insert(),
            [{**row, **stamps, "folded": f"{row['namespace']}/{row['name']}"} for row in rows],
        )
        connection.execute(
            access.insert(),
            [
                {"repository_id": key, "teams": [f"team-{key % 2}"], "labels": LABELS}
                for key in range(1, 10_001)
            ],
        )
    repositories = [
        Repository(row["id"], RepositoryId("model", row["namespace"], row["name"]), MOMENT, MOMENT)  # type: ignore[arg-type]
        for row in rows
    ]
    caller = Principal(1, "user", "zoe", ("team-0",), roles={"team-0": "read", "zoe": "admin"})
    assert len(desk.authorizer.readable(caller, repositories)) == 5000
    assert len(desk.decisions.asked) == 3, "opened to their team, to another, owned by their team"
    began = time.perf_counter()
    assert len(desk.authorizer.readable(caller, repositories)) == 5000
    took = time.perf_counter() - began
    assert len(desk.decisions.asked) == 3, "what was decided is remembered"
    assert took < 2
    bound = replace(caller, scope=checked_scope(repositories=["team-2/m2", "team-2/m22"]))
    found = desk.authorizer.readable(bound, repositories)
    assert [str(each.id) for each in found] == ["team-2/m2", "team-2/m22"]
    assert len(desk.decisions.asked) == 3 + 3 + 2


def test_what_is_remembered_is_bounded_and_forgotten_harmlessly(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast_model_registry.policy._REMEMBERED", 3)
    made = [desk.make(f"research/{letter}", (f"t-{letter}",)) for letter in "abcdef"]
    for _ in range(3):
        for caller in (ADA, EVE):
            expected = made if caller is ADA else []
            assert list(desk.authorizer.readable(caller, made)) == expected
    assert sum(map(len, desk.authorizer._remembered.values())) <= 3 + len(made)


def test_repositories_that_are_alike_have_one_class(desk: Desk) -> None:
    def class_of(repository: Repository) -> str:
        table = schema.repositories
        with desk.metadata.engine.connect() as connection:
            statement = sa.select(table.c.access_class).where(table.c.id == repository.key)
            return str(connection.execute(statement).scalar_one())

    one, two = desk.make("a/one", ("research", "other")), desk.make("b/two", ("other", "research"))
    assert class_of(one) == class_of(two) != ""
    assert class_of(desk.make("a/three")) != class_of(one)
    assert class_of(desk.make("a/four", (), {})) == ""
    before = class_of(one)
    with desk.metadata.engine.begin() as connection:
        connection.execute(
            inherited_labels.insert().values(
                repository_id=one.key, labels={"classification": "confidential"}
            )
        )
        classify(connection, [one.key])
    assert class_of(one) != before
    assert read_access(desk.metadata.engine, [one.key])[one.key].labels == {
        "jurisdiction": "de",
        "classification": "confidential",
    }


def test_the_first_releases_table_is_taken_over_once(desk: Desk) -> None:
    made = desk.make("research/old", (), {})
    engine = desk.metadata.engine
    document = "JSONB" if engine.dialect.name == "postgresql" else "JSON"
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE model_access (repository_id INTEGER NOT NULL PRIMARY KEY "
                f"REFERENCES repositories (id), teams {document} NOT NULL, "
                f"labels {document} NOT NULL)"
            )
        )
        connection.execute(
            sa.text(
                f"INSERT INTO model_access VALUES ({made.key}, '[\"research\"]', "
                '\'{"jurisdiction": "de", "classification": "internal"}\')'
            ).execution_options(no_parameters=True)
        )
    adopt_old_table(engine)
    adopt_old_table(engine)
    assert "model_access" not in sa.inspect(engine).get_table_names()
    assert desk.verbs(BEN, made) == ["discover", "read"]
    table = schema.repositories
    with engine.connect() as connection:
        assert connection.execute(sa.select(table.c.access_class)).scalar_one()


def test_the_directory_tells_of_users_not_of_services(tmp_path: Path) -> None:
    store = TrustStore(f"sqlite:///{tmp_path}/trust.db")
    store.create_schema()
    store.add_team("research")
    store.add_team("idle")
    store.add_user("ada", {"research": "admin"})
    store.add_user("ben")
    store.add_service("ci", ("research",))
    directory = TrustDirectory(store)
    assert directory.members("research") == {"ada": "admin"}
    assert directory.members("idle") == {}
    assert directory.members("none") is None
    assert directory.teams("ada") == {"research": "admin"}
    assert directory.teams("ben") == {}
    assert directory.teams("ci") is directory.teams("none") is None
    issued = store.issue_token("ada", "laptop", scope=checked_scope(["read"], ["research"]))
    caller = store.authenticate(issued.secret)
    assert caller is not None
    told = directory.token(caller)
    assert (told.name, told.verbs, told.teams, told.repositories) == (
        "laptop",
        ("read",),
        ("research",),
        None,
    )
    store.close()


@pytest.mark.parametrize(
    ("verb", "kind", "action", "subject"),
    [
        (Verb.READ, "model", "model.read", "model"),
        (Verb.DISCOVER, "dataset", "dataset.read", "dataset"),
        (Verb.CONTRIBUTE, "model", "model.write", "model"),
        (Verb.ADMIN, "dataset", "dataset.write", "dataset"),
        (Verb.READ, "", "model.read", "model"),
    ],
)
def test_reads_and_writes_are_events_of_their_own(
    tmp_path: Path, verb: Verb, kind: str, action: str, subject: str
) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        LedgerObserver(ledger).observe(
            AccessEvent(
                ADA, "commit", verb, "POST", "a/b", Verdict(allowed=True), 200, "r", kind=kind
            )
        )
        (record,) = read(ledger.path)
    assert (record["event"]["action"], record["event"][subject]) == (action, "a/b")
    assert record["event"]["verb"] == verb.value


def test_a_replica_reads_no_further_than_its_token(desk: Desk) -> None:
    desk.authorizer = ReplicaAuthorizer(
        desk.decisions,
        desk.metadata.engine,
        "de",
        [Replica(service="mirror", jurisdiction="de")],
    )
    one, other = desk.make("research/one"), desk.make("other/two")

    def seen(scope: Scope | None) -> list[str]:
        mirror = Principal(9, "service", "mirror", scope=scope)
        listed = desk.authorizer.readable(mirror, [one, other])
        for each in (one, other):
            assert desk.verbs(mirror, each) == (["discover", "read"] if each in listed else [])
        return [str(each.id) for each in listed]

    assert seen(None) == ["research/one", "other/two"]
    assert seen(checked_scope(repositories=["research/*"])) == ["research/one"]
    assert seen(checked_scope(repositories=["other/TWO"])) == ["other/two"]
    assert seen(checked_scope(verbs=["infer"])) == []
