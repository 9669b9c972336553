"""A hub over real stores with a policy of two people: ada reads everything, bob nothing."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from holdfast_hub_protocol.access import AccessEvent, Caller, Verb, Verdict
from holdfast_hub_protocol.application import create_application
from holdfast_hub_protocol.blobs import BlobStore, read_content
from holdfast_hub_protocol.endpoints import Hub
from holdfast_hub_protocol.facts import read_facts
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN, MetadataStore
from holdfast_hub_protocol.publishing import Published, publish
from holdfast_hub_protocol.records import NewCommit, NewFile, Repository
from holdfast_hub_protocol.schema import open_engine
from holdfast_hub_protocol.sending import DirectSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

BASE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Person:
    name: str
    kind: str = "user"
    teams: tuple[str, ...] = ()
    token_id: str = "t1"
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def email(self) -> str:
        return f"{self.name}@users.invalid"


@dataclass
class TwoPeople:
    """Authenticator, authorizer and observer in one."""

    events: list[AccessEvent] = field(default_factory=list)
    failure: Exception | None = None
    made: list[tuple[int, str, str]] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)

    def authenticate(self, token: str) -> Caller | None:
        return Person(token) if token in {"ada", "bob"} else None

    def recall(self, token_id: str) -> Caller | None:
        return Person("ada") if token_id not in self.revoked else None

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        allowed = caller.name == "ada" and repository is not None
        return Verdict(allowed, reason=f"{verb} {name}")

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        return Verdict(caller.name == "ada", reason=str(name))

    def created(
        self, connection: sa.Connection, repository_key: int, name: RepositoryId, caller: Caller
    ) -> None:
        assert connection.in_transaction()
        self.made.append((repository_key, str(name), caller.name))

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        return repositories if caller.name == "ada" else []

    def bounds(self, caller: Caller) -> Sequence[str] | None:  # noqa: ARG002 - unbound
        return None

    def observe(self, event: AccessEvent) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(event)


@dataclass
class World:
    """The stores, and a client that talks to the application over them."""

    metadata: MetadataStore
    blobs: BlobStore
    folder: Path
    people: TwoPeople
    hub: Hub
    client: TestClient
    commits: int = 0

    def store(self, path: str, content: bytes, *, lfs: bool = False) -> NewFile:
        """Put content in the blob store and return it as a file to publish."""
        source = self.folder / "source"
        source.write_bytes(content)
        with source.open("rb") as file:
            known = read_content(file)
        self.blobs.add(source, known.sha256, link=False)
        return NewFile(path, known.size, known.sha256, None if lfs else known.git_oid)

    def anonymous(self) -> TestClient:
        """Return a client without a token."""
        return TestClient(self.client.app)

    def publish(
        self,
        name: str,
        files: Sequence[NewFile],
        *,
        oid: str = "",
        parent: str | None = None,
        refs: Sequence[str] = (MAIN,),
    ) -> Published:
        """Publish files as a commit."""
        self.commits += 1
        commit = NewCommit(
            repository=RepositoryId.parse(name),
            oid=oid or f"{self.commits:040x}",
            files=tuple(files),
            title=f"Commit {self.commits}",
            author="ada",
            date=BASE + timedelta(days=self.commits),
            parent_oid=parent,
        )
        with self.metadata.engine.begin() as connection:
            return publish(connection, commit, read_facts(commit.files, self.blobs.path), refs=refs)


@pytest.fixture(scope="session")
def ready_postgresql(postgresql: Callable[[], str]) -> Iterator[Callable[[], str]]:
    """Make databases that have the tables: a copy is quicker than to create them each time."""
    template = sa.make_url(postgresql())
    engine = open_engine(template.render_as_string())
    MetadataStore(engine).create_schema()
    engine.dispose()
    server = sa.create_engine(template.set(database="postgres"), isolation_level="AUTOCOMMIT")
    numbers = count()

    def make() -> str:
        name = f"ready_{next(numbers)}"
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template.database}"))
        return template.set(database=name).render_as_string()

    yield make
    server.dispose()


@pytest.fixture(scope="session")
def ready_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database file that has the tables."""
    path = tmp_path_factory.mktemp("ready") / "hub.db"
    engine = open_engine(f"sqlite:///{path}")
    MetadataStore(engine).create_schema()
    engine.dispose()
    return path


@contextmanager
def make_world(request: pytest.FixtureRequest, folder: Path) -> Iterator[World]:
    """Open a hub on the database that the test's parameter names."""
    if request.param == "postgresql":
        url = request.getfixturevalue("ready_postgresql")()
    else:
        shutil.copyfile(request.getfixturevalue("ready_sqlite"), folder / "hub.db")
        url = f"sqlite:///{folder}/hub.db"
    metadata = MetadataStore(open_engine(url))
    blobs = BlobStore(folder / "blobs")
    blobs.create()
    people = TwoPeople()
    hub = Hub(
        metadata,
        blobs,
        DirectSender(blobs),
        people,
        people,
        people,
        kinds=("model", "dataset"),
    )
    client = TestClient(
        create_application(hub),
        headers={"Authorization": "Bearer ada"},
        raise_server_exceptions=False,
        follow_redirects=False,
    )
    with client:
        yield World(metadata, blobs, folder, people, hub, client)
    metadata.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with make_world(request, tmp_path) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def module_world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An empty hub, to be filled once for all tests of a module."""
    with make_world(request, tmp_path_factory.mktemp("module")) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full_world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with make_world(request, tmp_path_factory.mktemp("full")) as made:
        made.publish(
            "org/name",
            [
                made.store("README.md", b"---\nlicense: mit\n---\n"),
                made.store("config.json", b"{}"),
                made.store("empty", b""),
                made.store("w.bin", bytes(range(256)) * 40, lfs=True),
                *(made.store(f"many/{n:04d}", b"the same") for n in range(30)),
                made.store("many/deep/x", b"x"),
            ],
        )
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A hub with a new repository o/n, for tests that leave it as it is."""
    with make_world(request, tmp_path_factory.mktemp("shared")) as made:
        made.client.post("/api/repos/create", json={"name": "n", "organization": "o"})
        yield made


@pytest.fixture
def full(full_world: World) -> World:
    """A repository of some files, for reading only; what was noted before is forgotten."""
    full_world.people.events.clear()
    full_world.people.failure = None
    return full_world
