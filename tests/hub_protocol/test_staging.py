from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.access import Verdict
from holdfast_hub_protocol.holdings import MissingBlobError, check_blobs, fill, hold, holdings
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.quotas import QuotaError, Quotas, readable
from holdfast_hub_protocol.staging import (
    STAGED_SECONDS,
    Staging,
    commit_staged,
    namespace_usages,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import World
    from holdfast_hub_protocol.records import NewFile, Repository

BASE = datetime(2026, 1, 1, tzinfo=UTC)
NOW = 1_800_000_000.0


@dataclass
class Policy:
    """Reads what is listed by name."""

    readable_names: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    let_in: bool = False

    def readable(self, caller: object, repositories: Sequence[Repository]) -> list[Repository]:  # noqa: ARG002
        self.asked += [str(each.id) for each in repositories]
        return [each for each in repositories if str(each.id) in self.readable_names]

    def may(self, *_: object) -> Verdict:
        return Verdict(allowed=self.let_in)


@dataclass(frozen=True)
class Caller:
    name: str = "ada"
    kind: str = "user"
    teams: tuple[str, ...] = ("org",)
    token_id: str = "t"


@dataclass
class Desk:
    """A world with a staging of its own and a clock that stands still."""

    world: World
    policy: Policy
    now: list[float]
    staging: Staging

    def repository(self, name: str, files: Sequence[NewFile] = ()) -> Repository:
        listed = list(files) or [self.world.store("README.md", name.encode())]
        self.world.publish(name, listed)
        found = self.world.metadata.repository(RepositoryId.parse(name))
        assert found is not None
        return found

    def hold(self, repository: Repository, files: Sequence[NewFile]) -> None:
        with self.world.metadata.engine.begin() as connection:
            check_blobs(connection, self.world.blobs, files)
            hold(connection, repository.key, files, ref="refs/heads/main", date=BASE)
            commit_staged(connection, repository.key, files)

    def limit(self, **teams: int) -> Staging:
        self.staging = replace(self.staging, quotas=Quotas(teams=teams))
        return self.staging


@pytest.fixture
def desk(world: World) -> Desk:
    policy, now = Policy(), [NOW]
    staging = Staging(world.metadata, world.blobs, policy, clock=lambda: now[0])  # type: ignore[arg-type] # asks only for what is readable
    return Desk(world, policy, now, staging)


def blob(world: World, content: bytes) -> tuple[str, int]:
    file = world.store("x", content, lfs=True)
    return file.sha256, file.size


def test_what_was_uploaded_is_usable_there_and_not_elsewhere_until_it_expires(desk: Desk) -> None:
    here, there = desk.repository("org/here"), desk.repository("org/there")
    digest, size = blob(desk.world, b"weights")
    assert not desk.staging.usable(Caller(), here, digest, size)
    desk.staging.stage(here.key, digest, size)
    desk.staging.stage(here.key, digest, size)
    assert desk.staging.usable(Caller(), here, digest, size)
    assert not desk.staging.usable(Caller(), here, digest, size + 1)
    assert not desk.staging.usable(Caller(), there, digest, size)
    desk.now[0] += STAGED_SECONDS
    assert not desk.staging.usable(Caller(), here, digest, size)
    assert desk.staging.expire() == 1


def test_what_a_readable_repository_holds_is_usable_and_what_others_hold_is_not_looked_at(
    desk: Desk,
) -> None:
    secret = desk.world.store("w", b"secret", lfs=True)
    shared = desk.world.store("w", b"shared", lfs=True)
    desk.repository("other/secret", [secret])
    desk.repository("Org/closed", [secret])
    desk.repository("org/open", [shared])
    here = desk.repository("org/here")
    desk.policy.readable_names = {"org/open"}
    sizes = {file.sha256: file.size for file in (secret, shared)}
    assert desk.staging.usable_of(Caller(), here, sizes) == {shared.sha256}
    assert sorted(desk.policy.asked) == ["Org/closed", "org/open"]
    table = schema.repositories
    for reason in ("taken down", ""):
        with desk.world.metadata.engine.begin() as connection:
            connection.execute(table.update().values(disabled_reason=reason))
        assert desk.staging.usable(Caller(), here, shared.sha256, shared.size) == (not reason)
    desk.policy.readable_names |= {"other/secret"}
    assert not desk.staging.usable(Caller(), here, secret.sha256, secret.size)
    assert desk.staging.usable(Caller(teams=("other",)), here, secret.sha256, secret.size)


def test_what_a_gated_repository_holds_is_usable_by_who_was_let_in(desk: Desk) -> None:
    file = desk.world.store("w", b"gated", lfs=True)
    desk.repository("org/gated", [file])
    here = desk.repository("org/here")
    desk.policy.readable_names = {"org/gated"}
    table = schema.repositories
    with desk.world.metadata.engine.begin() as connection:
        connection.execute(table.update().where(table.c.name == "gated").values(gated="manual"))
    assert not desk.staging.usable(Caller(), here, file.sha256, file.size)
    desk.policy.let_in = True
    assert desk.staging.usable(Caller(), here, file.sha256, file.size)


def test_a_blob_that_is_gone_is_neither_usable_nor_staged_nor_published(desk: Desk) -> None:
    file = desk.world.store("w", b"weights", lfs=True)
    here = desk.repository("org/here", [file])
    assert desk.staging.usable(Caller(), here, file.sha256, file.size)
    desk.world.blobs.remove(file.sha256)
    assert not desk.staging.usable(Caller(), here, file.sha256, file.size)
    with pytest.raises(FileNotFoundError):
        desk.staging.stage(here.key, file.sha256, file.size)
    with pytest.raises(MissingBlobError, match="upload it again"):
        desk.hold(here, [file])


def test_a_quota_counts_a_blob_once_and_refuses_what_is_too_much(desk: Desk) -> None:
    file = desk.world.store("w", b"w" * 600, lfs=True)
    desk.repository("org/one", [file])
    two = desk.repository("org/two", [file])
    staging = desk.limit(org=1000)
    assert staging.usage("ORG").held == 600
    staging.reserve(two, {"a" * 64: 400})
    staging.reserve(two, {"a" * 64: 400})
    assert staging.usage("org").reserved == 400
    with pytest.raises(
        QuotaError, match=r"quota of org exceeded.*1 byte more.*of 1000 bytes"
    ) as no:
        staging.reserve(two, {"b" * 64: 1})
    assert no.value.status == 403
    assert staging.usage("org").reserved == 400, "a refused reservation is none"
    staging.release(two.key, ["a" * 64])
    staging.reserve(two, {"b" * 64: 1})
    assert [
        (usage.namespace, usage.held, usage.reserved)
        for usage in namespace_usages(desk.world.metadata.engine, staging.quotas)
    ] == [("org", 600, 1)]


def test_uploads_count_against_what_was_announced_for_them_not_on_top(desk: Desk) -> None:
    here = desk.repository("org/here", [desk.world.store("a", b"a" * 100)])
    staging = desk.limit(org=1100)
    staging.pledge(here, {"w.bin": 1000})
    staging.reserve(here, {"xorb:1": 900})
    assert staging.usage("org").reserved == 1000
    file = desk.world.store("w.bin", b"w" * 1000, lfs=True)
    staging.stage(here.key, file.sha256, file.size)
    staging.release(here.key, ["xorb:1"])
    assert staging.usage("org").reserved == 1000
    desk.hold(here, [file])
    usage = staging.usage("org")
    assert (usage.held, usage.reserved) == (1100, 0)
    staging.pledge(here, {"w.bin": 1000, "a": 100})  # the same folder again
    with pytest.raises(QuotaError):
        staging.pledge(here, {"new": 1001})


def test_reservations_expire(desk: Desk) -> None:
    here = desk.repository("org/here", [desk.world.store("a", b"")])
    staging = desk.limit(org=10)
    staging.pledge(here, {"w": 10})
    desk.now[0] += 3 * 3600
    staging.reserve(here, {"a" * 64: 10})
    assert staging.reserved(here.key, "a" * 64)
    desk.now[0] += 25 * 3600
    assert not staging.reserved(here.key, "a" * 64)
    staging.reserve(here, {"b" * 64: 10})


def test_two_at_once_do_not_both_get_the_last_bytes(desk: Desk) -> None:
    here = desk.repository("org/here", [desk.world.store("a", b"")])
    staging = desk.limit(org=10)

    def ask(number: int) -> bool:
        try:
            staging.reserve(here, {hashlib.sha256(bytes([number])).hexdigest(): 6})
        except QuotaError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_holdings_of_an_older_database_are_filled_in_once(desk: Desk) -> None:
    files = [desk.world.store("a", b"same"), desk.world.store("b.bin", b"same", lfs=True)]
    here = desk.repository("org/here", files)
    engine = desk.world.metadata.engine
    with engine.begin() as connection:
        connection.execute(holdings.delete())
    fill(engine)
    fill(engine)
    assert desk.staging.usable(Caller(), here, files[0].sha256, 4)


def test_sizes_read_well() -> None:
    assert [readable(size) for size in (0, 1, 1023, 1536, 5 << 30, 1 << 60)] == [
        "0 bytes",
        "1 byte",
        "1023 bytes",
        "1.5 KiB",
        "5.0 GiB",
        "1024.0 PiB",
    ]
