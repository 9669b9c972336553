"""Which blobs each repository holds in any commit: for reuse, for quotas, and for gc.

The entries say it too, but a file is in the entries of every commit since it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from holdfast_hub_protocol import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from holdfast_hub_protocol.blob_storage import BlobStorage
    from holdfast_hub_protocol.records import NewFile

# What git clients and `lfs-files` want to know beside the digest: where it first came, and when.
holdings: Final = sa.Table(
    "holdings",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("is_lfs", sa.Boolean, nullable=False),
    sa.Column("oid", sa.String(40), nullable=False),  # git's id of the file or of its pointer
    sa.Column("path", schema.Name, nullable=False),
    sa.Column("ref", schema.Name, nullable=False),
    sa.Column("pushed_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("holdings_by_sha256", "sha256"),
)

_LOCK: Final = 7204301  # one number for this use in all of the database
_PART: Final = 500  # rows a statement: SQLite's bound on variables is far above


class MissingBlobError(Exception):
    """A file is to be published whose blob is not there (any more): upload it again."""


def guard(connection: sa.Connection, *, exclusive: bool = False) -> None:
    """Keep `gc` from removing blobs until this transaction ends; `exclusive` is gc itself.

    Call it before looking whether a blob is there. On SQLite it takes the only write lock, so it
    has to come before the transaction's first read.
    """
    if connection.dialect.name == "postgresql":
        name = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
        connection.execute(sa.select(getattr(sa.func, name)(_LOCK)))
    else:
        connection.execute(holdings.delete().where(sa.false()))


def check_blobs(connection: sa.Connection, blobs: BlobStorage, files: Iterable[NewFile]) -> None:
    """Raise MissingBlobError unless every file's blob is there, and will be until the commit.

    First thing in the transaction that publishes the files.
    """
    guard(connection)
    for file in files:
        if not blobs.has(file.sha256, file.size):
            raise MissingBlobError(f"the content of {file.path} is not here: upload it again")


def hold(
    connection: sa.Connection,
    repository_key: int,
    files: Iterable[NewFile],
    *,
    ref: str,
    date: datetime,
) -> None:
    """Note that a repository holds the blobs of files, in the transaction that publishes them."""
    listed = list(files)
    known = held(connection, repository_key, list({file.sha256 for file in listed}))
    new = {file.sha256: file for file in listed if file.sha256 not in known}
    insert_missing(
        connection,
        holdings,
        [
            {
                "repository_id": repository_key,
                "sha256": file.sha256,
                "size": file.size,
                "is_lfs": file.git_oid is None,
                "oid": file.oid,
                "path": file.path,
                "ref": ref,
                "pushed_at": date,
            }
            for file in new.values()
        ],
    )


def insert_missing(
    connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]
) -> None:
    """Insert rows, leaving those that are there by primary key as they are."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    else:
        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)


def held(connection: sa.Connection, repository_key: int, digests: Sequence[str]) -> dict[str, int]:
    """Return the sizes of those blobs that a repository holds."""
    found: dict[str, int] = {}
    for first in range(0, len(digests), _PART):
        rows = connection.execute(
            sa.select(holdings.c.sha256, holdings.c.size).where(
                holdings.c.repository_id == repository_key,
                holdings.c.sha256.in_(digests[first : first + _PART]),
            )
        )
        found |= {row.sha256: row.size for row in rows}
    return found


def fill(engine: sa.Engine) -> None:
    """Fill the table from the entries, once: databases of before it was there have none."""
    entries, snapshots, repositories = schema.entries, schema.snapshots, schema.repositories
    first = (
        sa.select(
            snapshots.c.repository_id,
            entries.c.sha256,
            sa.func.min(entries.c.size),
            # A blob is large and regular at once where two files have the same content.
            sa.func.max(sa.cast(entries.c.is_lfs, sa.Integer)) == 1,
            sa.func.min(entries.c.oid),
            sa.func.min(entries.c.path),
            sa.literal("refs/heads/main"),
            sa.func.min(repositories.c.created_at),
        )
        .join(snapshots, snapshots.c.id == entries.c.snapshot_id)
        .join(repositories, repositories.c.id == snapshots.c.repository_id)
        .where(entries.c.sha256.is_not(None))
        .group_by(snapshots.c.repository_id, entries.c.sha256)
    )
    with engine.begin() as connection:
        guard(connection, exclusive=True)
        if connection.execute(sa.select(sa.exists().select_from(holdings))).scalar():
            return
        connection.execute(holdings.insert().from_select(holdings.c.keys(), first))
