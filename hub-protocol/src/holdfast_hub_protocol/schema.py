"""The tables of repositories, commits and files; `access` belongs to whoever holds the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import JSONB

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

# Pages of a listing go on where the last one ended, so both databases must sort bytewise.
Name: Final = sa.String().with_variant(sa.String(collation="C"), "postgresql")
Document: Final = sa.JSON().with_variant(JSONB(), "postgresql")

metadata: Final = sa.MetaData()

repositories: Final = sa.Table(
    "repositories",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("namespace", Name, nullable=False),
    sa.Column("name", Name, nullable=False),
    # namespace/name in lower case: no two names differ in case only.
    sa.Column("folded", Name, nullable=False, server_default=""),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("private", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("gated", sa.String(8), nullable=False, server_default=""),  # '', auto or manual
    # Of thirty days, and of all time; likes; what trends: as listings sort and show them.
    sa.Column("downloads", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("downloads_all_time", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("likes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("trending_score", sa.BigInteger, nullable=False, server_default="0"),
    # Set by whoever holds the policy: repositories of one namespace, visibility and class are
    # seen by the same callers. '': nobody said, so each is decided on by itself.
    sa.Column("access_class", sa.String(64), nullable=False, server_default=""),
    # Why nobody gets its files; '' where they are sent.
    sa.Column("disabled_reason", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("kind", "namespace", "name"),
    sa.Index("repositories_by_folded_name", "kind", "folded", unique=True),
    sa.Index("repositories_by_access", "kind", "namespace", "private", "access_class"),
    sa.Index("repositories_by_gated", "kind", "gated"),
)

# A listing reads just its page in order, of all repositories or of a few namespaces.
SORTED_BY: Final = ("updated_at", "created_at", "downloads", "likes", "trending_score")
for _column in SORTED_BY:
    sa.Index(
        f"repositories_by_{_column}",
        *(repositories.c[name] for name in ("kind", _column, "namespace", "name")),
    )
    sa.Index(
        f"repositories_of_namespace_by_{_column}",
        *(repositories.c[name] for name in ("kind", "namespace", _column, "name")),
    )

# The names that a repository had: they lead to it until another takes one.
redirects: Final = sa.Table(
    "redirects",
    metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("folded", Name, primary_key=True),
    sa.Column(
        "repository_id", sa.ForeignKey(repositories.c.id, ondelete="CASCADE"), nullable=False
    ),
)

# The whole content of a tree; commits may share one.
snapshots: Final = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository_id", sa.ForeignKey(repositories.c.id), nullable=False),
    sa.Column("tree_oid", sa.String(40), nullable=False),
    sa.Column("facts", Document, nullable=False),
    sa.Index("snapshots_by_tree", "repository_id", "tree_oid"),
)

entries: Final = sa.Table(
    "entries",
    metadata,
    sa.Column("snapshot_id", sa.ForeignKey(snapshots.c.id), primary_key=True),
    sa.Column("path", Name, primary_key=True),
    sa.Column("parent", Name, nullable=False),
    sa.Column("oid", sa.String(40), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),  # null: a folder
    sa.Column("is_lfs", sa.Boolean, nullable=False),
    sa.Column("last_commit", sa.String(40)),  # what changed it last; null: not known
    sa.Index("entries_by_parent", "snapshot_id", "parent", "path"),
)

commits: Final = sa.Table(
    "commits",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository_id", sa.ForeignKey(repositories.c.id), nullable=False),
    sa.Column("oid", sa.String(40), nullable=False),
    sa.Column("snapshot_id", sa.ForeignKey(snapshots.c.id), nullable=False),
    sa.Column("parent_oid", sa.String(40)),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("date", sa.DateTime(timezone=True), nullable=False),
    # What git hashes to the id; null for imports, which keep the id that they came with.
    sa.Column("object", sa.LargeBinary),
    sa.UniqueConstraint("repository_id", "oid"),
)

refs: Final = sa.Table(
    "refs",
    metadata,
    sa.Column("repository_id", sa.ForeignKey(repositories.c.id), primary_key=True),
    sa.Column("name", Name, primary_key=True),  # refs/heads/main, refs/tags/v1
    sa.Column("commit_id", sa.ForeignKey(commits.c.id), nullable=False),
)


schema_version: Final = sa.Table(
    "schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True)
)


def open_engine(url: str) -> sa.Engine:
    """Open SQLite (write-ahead log, waits for locks) or PostgreSQL; create what is missing."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    # Writers hold a connection each while they wait for the one lock that there is: as many as
    # there may be threads, or whoever has the lock could wait for a second connection of theirs.
    engine = sa.create_engine(url, max_overflow=200)
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:  # noqa: ANN401 - DBAPI
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA busy_timeout = 15000")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
