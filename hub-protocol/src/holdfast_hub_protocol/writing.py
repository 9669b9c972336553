"""Transactions that change one repository, one at a time; and the rows that they write."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

import sqlalchemy as sa

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.holdings import guard
from holdfast_hub_protocol.listings import index_repository
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.snapshots import insert

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.records import Commit, Repository


# Connections that writers may hold while they wait for one another: fewer than the pool has, for
# whoever is at work may need another one.
WRITERS: Final = 6
_GATES: Final[WeakKeyDictionary[sa.Engine, threading.Semaphore]] = WeakKeyDictionary()
_TURNS: Final[WeakValueDictionary[tuple[int, int], _Turn]] = WeakValueDictionary()
_MAKING: Final = threading.Lock()


class _Turn:
    """A lock that is forgotten with the last one who waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@contextmanager
def turn(hub: Hub, repository: Repository) -> Iterator[None]:
    """Let one thread of this process at a time prepare a change of a repository.

    Not needed for what is right, as `transaction` is, but so that those who would lose the race
    neither do work in vain nor hold connections meanwhile.
    """
    with _MAKING:
        mine = _TURNS.setdefault((id(hub.metadata.engine), repository.key), _Turn())
    with mine.lock:
        yield


@contextmanager
def transaction(hub: Hub, repository: Repository) -> Iterator[sa.Connection]:
    """Open a transaction in which nobody else changes this repository, and gc removes nothing.

    It begins by writing: SQLite then lets nobody else write, PostgreSQL nobody to this row, and
    what is read afterwards is what the last one wrote. HubError 404 if the repository is gone.
    """
    table = schema.repositories
    engine = hub.metadata.engine
    with _MAKING:
        gate = _GATES.setdefault(engine, threading.Semaphore(WRITERS))
    with gate, engine.begin() as connection:
        guard(connection)
        locked = connection.execute(
            table.update().where(table.c.id == repository.key).values(updated_at=table.c.updated_at)
        )
        if locked.rowcount == 0:
            raise errors.repository_not_found()
        yield connection


def touch(connection: sa.Connection, repository: Repository) -> None:
    """Note that a repository changed now."""
    table = schema.repositories
    connection.execute(
        table.update().where(table.c.id == repository.key).values(updated_at=datetime.now(UTC))
    )


def head_oid(connection: sa.Connection, repository: Repository, ref: str) -> str | None:
    """Return the commit id that a full reference name stands for."""
    oid: str | None = connection.execute(
        sa.select(schema.commits.c.oid)
        .join(schema.refs, schema.refs.c.commit_id == schema.commits.c.id)
        .where(schema.refs.c.repository_id == repository.key, schema.refs.c.name == ref)
    ).scalar_one_or_none()
    return oid


def commit_key(connection: sa.Connection, repository: Repository, oid: str) -> int | None:
    """Return the row of a commit."""
    key: int | None = connection.execute(
        sa.select(schema.commits.c.id).where(
            schema.commits.c.repository_id == repository.key, schema.commits.c.oid == oid
        )
    ).scalar_one_or_none()
    return key


def put_commit(
    connection: sa.Connection, repository: Repository, commit: Commit, git_object: bytes
) -> int:
    """Write a commit and return its row.

    The same commit again is the same row: two branches may come to it within one second.
    """
    known = commit_key(connection, repository, commit.oid)
    if known is not None:
        return known
    return insert(
        connection,
        schema.commits,
        repository_id=repository.key,
        oid=commit.oid,
        snapshot_id=commit.snapshot,
        parent_oid=commit.parent_oid,
        title=commit.title,
        message=commit.message,
        author=commit.author,
        date=commit.date,
        object=git_object,
    )


def point(connection: sa.Connection, repository: Repository, ref: str, key: int) -> None:
    """Let a reference stand for a commit's row, making it if there is none."""
    table = schema.refs
    moved = connection.execute(
        table.update()
        .where(table.c.repository_id == repository.key, table.c.name == ref)
        .values(commit_id=key)
    )
    if moved.rowcount == 0:
        connection.execute(
            table.insert().values(repository_id=repository.key, name=ref, commit_id=key)
        )
    if ref == MAIN:
        index_repository(connection, repository.key)


def unpoint(connection: sa.Connection, repository: Repository, ref: str) -> bool:
    """Remove a reference; tell whether it was there."""
    table = schema.refs
    removed = connection.execute(
        table.delete().where(table.c.repository_id == repository.key, table.c.name == ref)
    )
    return removed.rowcount > 0
