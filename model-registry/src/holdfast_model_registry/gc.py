"""Collecting what nothing needs any more: commits out of reach, and blobs that no commit holds.

Mark and sweep, beside a registry that serves. What goes in a step goes in one transaction, under a
lock that commits and uploads share: one that counts on a blob has it, or finds it gone and says so.
Killed at any point, it has only done less.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.holdings import guard, holdings, insert_missing
from holdfast_hub_protocol.lfs.parts import forget_old_parts
from holdfast_hub_protocol.staging import AWAITED_SECONDS, staged
from holdfast_model_registry.review.states import State
from holdfast_model_registry.review.tables import reviews
from holdfast_model_registry.storage import one_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_hub_protocol.blobs import Stored
    from holdfast_model_registry.storage import Locations, Storage

GRACE_SECONDS: Final = 24 * 3600
_BATCH: Final = 200  # rows or blobs in one transaction: others wait as long

# Since when a commit is out of reach; when it was made says nothing about that.
unreachable: Final = sa.Table(
    "unreachable_commits",
    schema.metadata,
    sa.Column(
        "commit_id", sa.ForeignKey(schema.commits.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("noticed_at", sa.BigInteger, nullable=False),  # Unix seconds
)


@dataclass
class Collected:
    """What was removed; what waits is out of reach, but not for as long as the grace period."""

    dry_run: bool
    commits: int = 0
    snapshots: int = 0
    blobs: int = 0
    bytes: int = 0
    waiting_commits: int = 0
    waiting_blobs: int = 0
    staged: int = 0  # announced or uploaded, and never committed
    leftovers: int = 0  # of processes that were killed

    def as_json(self) -> dict[str, Any]:
        """Return it as `gc` prints it."""
        return asdict(self)


@contextmanager
def keep_blobs(locations: Locations, *, collecting: bool = False) -> Iterator[None]:
    """Let backups run beside one another, and one collection alone; others wait."""
    descriptor = os.open(locations.data / "gc.lock", os.O_CREAT | os.O_RDWR, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if collecting else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def collect(storage: Storage, *, grace: float = GRACE_SECONDS, dry_run: bool = False) -> Collected:
    """Remove what was out of reach for `grace` seconds; with `dry_run` only count it.

    A dry run does not count blobs that commits hold which would go in the same run.
    """
    collected, now = Collected(dry_run), time.time()
    engine = storage.metadata.engine
    if not dry_run:
        _expire(storage, collected, now, grace)
    with one_view(engine) as connection:
        out_of_reach = list(_unreachable_commits(connection))
    if not dry_run:
        _notice(engine, out_of_reach, now)
    _collect_commits(engine, collected, now - grace)
    collected.waiting_commits = len(out_of_reach) - collected.commits
    if not dry_run:
        _collect_snapshots(engine, collected)
    candidates: list[Stored] = []
    for blob in _unheld(storage):
        if blob.modified >= now - grace:
            collected.waiting_blobs += 1
            continue
        candidates.append(blob)
        if len(candidates) == _BATCH:
            _collect_blobs(storage, candidates, collected)
            candidates.clear()
    _collect_blobs(storage, candidates, collected)
    return collected


def _expire(storage: Storage, collected: Collected, now: float, grace: float) -> None:
    with storage.metadata.engine.begin() as connection:
        collected.staged = connection.execute(
            staged.delete().where(staged.c.expires_at <= int(now))
        ).rowcount
        forget_old_parts(connection, now - max(grace, AWAITED_SECONDS))
    collected.leftovers = storage.blobs.sweep_leftovers(max(grace, GRACE_SECONDS))
    collected.leftovers += storage.xorbs.expire().files


def _unreachable_commits(
    connection: sa.Connection, repository_key: int | None = None
) -> Iterator[int]:
    """Yield the commits, of one repository or all, that no branch or other record leads to."""
    roots = set(connection.execute(_roots()).scalars())
    commits = schema.commits
    query = sa.select(
        commits.c.repository_id, commits.c.id, commits.c.oid, commits.c.parent_oid
    ).order_by(commits.c.repository_id)
    if repository_key is not None:
        query = query.where(commits.c.repository_id == repository_key)
    rows = connection.execute(query, execution_options={"yield_per": 10_000})
    for _, group in groupby(rows, key=attrgetter("repository_id")):
        by_oid = {row.oid: row for row in group}
        reached: set[str] = set()
        for row in by_oid.values():
            if row.id not in roots:
                continue
            oid: str | None = row.oid
            while oid is not None and oid in by_oid and oid not in reached:
                reached.add(oid)
                oid = by_oid[oid].parent_oid
        yield from (row.id for row in by_oid.values() if row.oid not in reached)


def _roots() -> sa.CompoundSelect[Any]:
    """Select the commits to begin from: what refs and the like point at, and what is approved.

    A row that goes with its commit (ON DELETE CASCADE) does not keep it.
    """
    pointing: list[sa.Select[Any]] = [
        sa.select(key.parent).where(key.parent.is_not(None))
        for table in schema.metadata.sorted_tables
        for key in table.foreign_keys
        if key.column is schema.commits.c.id and key.ondelete != "CASCADE"
    ]
    commits = schema.commits
    approved = (
        sa.select(commits.c.id)
        .join(
            reviews,
            (reviews.c.repository_id == commits.c.repository_id)
            & (reviews.c.commit_oid == commits.c.oid),
        )
        .where(reviews.c.state == State.APPROVED.value)
    )
    return sa.union_all(*pointing, approved)


def _notice(engine: sa.Engine, found: Sequence[int], now: float) -> None:
    with engine.begin() as connection:
        known = set(connection.execute(sa.select(unreachable.c.commit_id)).scalars())
        back = list(known - set(found))
        for part in _parts(back):
            connection.execute(unreachable.delete().where(unreachable.c.commit_id.in_(part)))
        new = [{"commit_id": each, "noticed_at": int(now)} for each in found if each not in known]
        insert_missing(connection, unreachable, new)


def _collect_commits(engine: sa.Engine, collected: Collected, before: float) -> None:
    commits = schema.commits
    old = (
        sa.select(commits.c.repository_id, commits.c.id)
        .join(unreachable, unreachable.c.commit_id == commits.c.id)
        .where(unreachable.c.noticed_at <= before)
        .order_by(commits.c.repository_id)
    )
    with engine.connect() as connection:
        rows = connection.execute(old).all()
    if collected.dry_run:
        collected.commits = len(rows)
        return
    for repository_key, group in groupby(rows, key=attrgetter("repository_id")):
        doomed = {row.id for row in group}
        with engine.begin() as connection:
            guard(connection, exclusive=True)
            # A new branch may lead to some of them since they were looked at.
            gone = doomed.intersection(_unreachable_commits(connection, repository_key))
            for part in _parts(sorted(gone)):
                connection.execute(unreachable.delete().where(unreachable.c.commit_id.in_(part)))
                connection.execute(commits.delete().where(commits.c.id.in_(part)))
            collected.commits += len(gone)


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[first : first + _BATCH] for first in range(0, len(items), _BATCH))


def _collect_snapshots(engine: sa.Engine, collected: Collected) -> None:
    """Remove trees that no commit has, and what only they held from the holdings."""
    snapshots, entries, commits = schema.snapshots, schema.entries, schema.commits
    unused = sa.select(snapshots.c.id, snapshots.c.repository_id).where(
        ~sa.exists().where(commits.c.snapshot_id == snapshots.c.id)
    )
    with engine.connect() as connection:
        doomed = connection.execute(unused).all()
    for row in doomed:
        with engine.begin() as connection:
            guard(connection, exclusive=True)
            still = connection.execute(unused.where(snapshots.c.id == row.id)).first()
            if still is None:
                continue
            digests = sa.select(entries.c.sha256).where(
                entries.c.snapshot_id == row.id, entries.c.sha256.is_not(None)
            )
            here = list(connection.execute(digests.distinct()).scalars())
            connection.execute(entries.delete().where(entries.c.snapshot_id == row.id))
            connection.execute(snapshots.delete().where(snapshots.c.id == row.id))
            _drop_holdings(connection, row.repository_id, here)
            collected.snapshots += 1


def _drop_holdings(connection: sa.Connection, repository_key: int, digests: list[str]) -> None:
    snapshots, entries = schema.snapshots, schema.entries
    for part in _parts(digests):
        elsewhere = (
            sa.select(entries.c.sha256)
            .join(snapshots, snapshots.c.id == entries.c.snapshot_id)
            .where(snapshots.c.repository_id == repository_key, entries.c.sha256.in_(part))
        )
        connection.execute(
            holdings.delete().where(
                holdings.c.repository_id == repository_key,
                holdings.c.sha256.in_(part),
                holdings.c.sha256.not_in(elsewhere),
            )
        )


def _unheld(storage: Storage) -> Iterator[Stored]:
    """Yield the blobs that nothing holds, by walking both sorted lists at once."""
    with storage.metadata.engine.connect() as connection:
        query = live_digests(connection.dialect.name)
        with connection.execute(query, execution_options={"yield_per": 10_000}) as rows:
            held = rows.scalars()
            next_held = next(held, None)
            for blob in storage.blobs.stored():
                while next_held is not None and next_held < blob.sha256:
                    next_held = next(held, None)
                if next_held != blob.sha256:
                    yield blob


def live_digests(dialect: str) -> sa.Select[Any]:
    """Select, sorted, what any record says is needed: holdings, files of trees, staged uploads."""
    found = sa.union(
        sa.select(holdings.c.sha256.label("sha256")),
        sa.select(schema.entries.c.sha256).where(schema.entries.c.sha256.is_not(None)),
        sa.select(sa.cast(staged.c.key, sa.String(64))).where(sa.func.length(staged.c.key) == 64),
    ).subquery()
    digest = found.c.sha256
    # The list of files is sorted bytewise.
    return sa.select(digest).order_by(
        sa.collate(digest, "C" if dialect == "postgresql" else "BINARY")
    )


def _collect_blobs(storage: Storage, candidates: list[Stored], collected: Collected) -> None:
    digests = [blob.sha256 for blob in candidates]
    with storage.metadata.engine.begin() as connection:
        guard(connection, exclusive=True)
        # They may be needed since they were looked at; whoever needs one now waits for us.
        needed = set(
            connection.execute(
                sa.union_all(
                    sa.select(holdings.c.sha256).where(holdings.c.sha256.in_(digests)),
                    sa.select(staged.c.key).where(staged.c.key.in_(digests)),
                )
            ).scalars()
        )
        for blob in candidates:
            if blob.sha256 in needed:
                continue
            if not collected.dry_run:
                storage.blobs.remove(blob.sha256)
            collected.blobs += 1
            collected.bytes += blob.size
