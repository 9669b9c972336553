"""Questions about repositories, commits and files, answered from the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId, is_commit_prefix
from holdfast_hub_protocol.records import Commit, Entry, Repository
from holdfast_hub_protocol.upgrades import create_or_upgrade

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_REPOSITORY = (
    schema.repositories.c.id,
    schema.repositories.c.kind,
    schema.repositories.c.namespace,
    schema.repositories.c.name,
    schema.repositories.c.created_at,
    schema.repositories.c.updated_at,
    schema.repositories.c.private,
    schema.repositories.c.gated,
    schema.repositories.c.downloads,
    schema.repositories.c.likes,
    schema.repositories.c.downloads_all_time,
    schema.repositories.c.trending_score,
    schema.repositories.c.disabled_reason,
)
_COMMIT = (
    schema.commits.c.oid,
    schema.commits.c.snapshot_id,
    schema.snapshots.c.tree_oid,
    schema.commits.c.parent_oid,
    schema.commits.c.title,
    schema.commits.c.message,
    schema.commits.c.author,
    schema.commits.c.date,
    schema.snapshots.c.facts,
)
_ENTRY = (
    schema.entries.c.path,
    schema.entries.c.oid,
    schema.entries.c.size,
    schema.entries.c.sha256,
    schema.entries.c.is_lfs,
    schema.entries.c.last_commit,
)
MAIN = "refs/heads/main"
_PART = 500  # values in one question: SQLite's bound on variables is far above


@dataclass(frozen=True)
class Ref:
    """A branch or tag: its full name and the commit it stands for."""

    name: str
    commit: str


class MetadataStore:
    """Reads only; publishing.py writes."""

    def __init__(self, engine: sa.Engine, connection: sa.Connection | None = None) -> None:
        self.engine = engine
        self._connection = connection

    def within(self, connection: sa.Connection) -> MetadataStore:
        """Return a store that asks inside a transaction, and sees what that has written."""
        return MetadataStore(self.engine, connection)

    def create_schema(self) -> None:
        """Create the tables that are missing, upgrade older ones; NewerSchemaError."""
        create_or_upgrade(self.engine)

    def ping(self) -> None:
        """Raise an sqlalchemy error unless the database answers."""
        self._all(sa.select(sa.literal(1)))

    def repository(self, name: RepositoryId) -> Repository | None:
        """Return the repository of this name, in upper or lower case."""
        table = schema.repositories
        row = self._one(
            sa.select(*_REPOSITORY).where(table.c.kind == name.kind, table.c.folded == name.folded)
        )
        return None if row is None else _repository(row)

    def repositories_by_key(self, keys: Collection[int]) -> list[Repository]:
        """Return the repositories of these rows."""
        rows = self._all(sa.select(*_REPOSITORY).where(schema.repositories.c.id.in_(keys)))
        return [_repository(row) for row in rows]

    def named(self, name: RepositoryId) -> Repository | None:
        """Return the repository that has this name, or else the one that had it before it moved.

        One question whatever the answer: what is there takes no other time than what is not.
        """
        table, old = schema.repositories, schema.redirects
        # Not "or": that would read every name of the kind.
        keys = sa.union_all(
            sa.select(table.c.id).where(table.c.kind == name.kind, table.c.folded == name.folded),
            sa.select(old.c.repository_id).where(
                old.c.kind == name.kind, old.c.folded == name.folded
            ),
        )
        rows = self._all(sa.select(*_REPOSITORY).where(table.c.id.in_(keys)))
        found = [_repository(row) for row in rows]
        found.sort(key=lambda repository: repository.id.folded != name.folded)
        return found[0] if found else None

    def commit(self, repository: Repository, revision: str) -> Commit | None:
        """Return what a branch, a tag, a full ref name or a commit id stands for.

        An id may be shortened to 7 digits while only one commit of the repository begins so.
        """
        names = [f"refs/heads/{revision}", f"refs/tags/{revision}", revision]
        found = self._all(
            _commits(repository)
            .add_columns(schema.refs.c.name)
            .join(schema.refs, schema.refs.c.commit_id == schema.commits.c.id)
            .where(schema.refs.c.repository_id == repository.key, schema.refs.c.name.in_(names))
        )
        for name in names:
            for row in found:
                if row.name == name:
                    return _commit(row)
        if not is_commit_prefix(revision):
            return None
        oid = schema.commits.c.oid
        # 'g' sorts after every hex digit: a range that the index answers.
        matching = _commits(repository).where(oid >= revision, oid < f"{revision}g").limit(2)
        by_id = self._all(matching)
        return _commit(by_id[0]) if len(by_id) == 1 else None

    def head(self, repository: Repository, ref: str) -> Commit | None:
        """Return what a full reference name stands for."""
        row = self._one(
            _commits(repository)
            .join(schema.refs, schema.refs.c.commit_id == schema.commits.c.id)
            .where(schema.refs.c.repository_id == repository.key, schema.refs.c.name == ref)
        )
        return None if row is None else _commit(row)

    def history(self, repository: Repository, commit: Commit, limit: int) -> list[Commit]:
        """Return a commit and its ancestors as far as they are known here, newest first."""
        table = schema.commits
        line = (
            sa.select(table.c.id, table.c.parent_oid, sa.literal(0).label("age"))
            .where(table.c.repository_id == repository.key, table.c.oid == commit.oid)
            .cte("line", recursive=True)
        )
        line = line.union_all(
            sa.select(table.c.id, table.c.parent_oid, line.c.age + 1)
            .join(line, table.c.oid == line.c.parent_oid)
            .where(table.c.repository_id == repository.key, line.c.age + 1 < limit)
        )
        rows = self._all(
            _commits(repository).join(line, line.c.id == table.c.id).order_by(line.c.age)
        )
        return [_commit(row) for row in rows]

    def commits(self, repository: Repository, oids: Collection[str]) -> dict[str, Commit]:
        """Return those of the commits that are known here, by id."""
        wanted = sorted(oids)
        found: dict[str, Commit] = {}
        for first in range(0, len(wanted), _PART):
            some = schema.commits.c.oid.in_(wanted[first : first + _PART])
            found |= {row.oid: _commit(row) for row in self._all(_commits(repository).where(some))}
        return found

    def git_object(self, repository: Repository, commit: Commit) -> bytes | None:
        """Return what git hashes to a commit's id; None for an id that came from elsewhere."""
        table = schema.commits
        row = self._one(
            sa.select(table.c.object).where(
                table.c.repository_id == repository.key, table.c.oid == commit.oid
            )
        )
        return None if row is None else row.object

    def refs(self, repository: Repository) -> list[Ref]:
        """Return all branches and tags, by name."""
        rows = self._all(
            sa.select(schema.refs.c.name, schema.commits.c.oid)
            .join(schema.commits, schema.refs.c.commit_id == schema.commits.c.id)
            .where(schema.refs.c.repository_id == repository.key)
            .order_by(schema.refs.c.name)
        )
        return [Ref(name=row.name, commit=row.oid) for row in rows]

    def entry(self, commit: Commit, path: str) -> Entry | None:
        """Return the file or folder of exactly this path."""
        found = self.entries_at(commit, [path])
        return found[0] if found else None

    def entries_at(self, commit: Commit, paths: Sequence[str]) -> list[Entry]:
        """Return those of the paths that are there, by path."""
        table = schema.entries
        found: list[Entry] = []
        for first in range(0, len(paths), _PART):
            rows = self._all(
                sa.select(*_ENTRY).where(
                    table.c.snapshot_id == commit.snapshot,
                    table.c.path.in_(paths[first : first + _PART]),
                )
            )
            found += [_entry(row) for row in rows]
        return sorted(found, key=lambda entry: entry.path.encode())

    def children(self, commit: Commit, folder: str) -> list[Entry]:
        """Return everything that lies directly in a folder ('' is the root)."""
        table = schema.entries
        rows = self._all(
            sa.select(*_ENTRY).where(
                table.c.snapshot_id == commit.snapshot,
                table.c.parent == folder,
                table.c.path != "",
            )
        )
        return [_entry(row) for row in rows]

    def files_below(self, commit: Commit, folder: str) -> list[Entry]:
        """Return every file below a folder, by path."""
        table = schema.entries
        rows = self._all(
            sa.select(*_ENTRY)
            .where(
                table.c.snapshot_id == commit.snapshot,
                table.c.sha256.is_not(None),
                table.c.path > f"{folder}/",
                table.c.path < f"{folder}0",
            )
            .order_by(table.c.path)
        )
        return [_entry(row) for row in rows]

    def files_named(
        self, commit: Commit, names: Collection[str], suffixes: Collection[str]
    ) -> list[Entry]:
        """Return the files of these paths, and those whose path ends so."""
        path = schema.entries.c.path
        rows = self._all(
            sa.select(*_ENTRY).where(
                schema.entries.c.snapshot_id == commit.snapshot,
                schema.entries.c.sha256.is_not(None),
                path.in_(names)
                | sa.or_(*(path.endswith(end, autoescape=True) for end in suffixes)),
            )
        )
        return [_entry(row) for row in rows]

    def entries(self, commit: Commit) -> list[Entry]:
        """Return every file and folder of a commit but the root, by path."""
        table = schema.entries
        rows = self._all(
            sa.select(*_ENTRY)
            .where(table.c.snapshot_id == commit.snapshot, table.c.path != "")
            .order_by(table.c.path)
        )
        return [_entry(row) for row in rows]

    def files(self, commit: Commit) -> list[Entry]:
        """Return every file of a commit, by path."""
        table = schema.entries
        rows = self._all(
            sa.select(*_ENTRY)
            .where(table.c.snapshot_id == commit.snapshot, table.c.sha256.is_not(None))
            .order_by(table.c.path)
        )
        return [_entry(row) for row in rows]

    def listing(
        self, commit: Commit, folder: str, *, recursive: bool, after: str, limit: int
    ) -> list[Entry]:
        """Return at most `limit` entries of a folder ('' is the root) that sort past `after`."""
        table = schema.entries
        query = (
            sa.select(*_ENTRY)
            .where(table.c.snapshot_id == commit.snapshot, table.c.path > after, table.c.path != "")
            .order_by(table.c.path)
            .limit(limit)
        )
        if not recursive:
            query = query.where(table.c.parent == folder)
        elif folder:
            # '0' is the character after '/': a range that the primary key answers.
            query = query.where(table.c.path > f"{folder}/", table.c.path < f"{folder}0")
        return [_entry(row) for row in self._all(query)]

    def _all(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        if self._connection is not None:
            return self._connection.execute(query).all()
        with self.engine.connect() as connection:
            return connection.execute(query).all()

    def _one(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        rows = self._all(query)
        if len(rows) > 1:  # every such question is by a unique key
            raise AssertionError(str(query))
        return rows[0] if rows else None


def _commits(repository: Repository) -> sa.Select[Any]:
    return (
        sa.select(*_COMMIT)
        .join(schema.snapshots, schema.snapshots.c.id == schema.commits.c.snapshot_id)
        .where(schema.commits.c.repository_id == repository.key)
    )


def _utc(moment: datetime) -> datetime:
    # SQLite keeps no offset; everything is written in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _repository(row: sa.Row[Any]) -> Repository:
    return Repository(
        key=row.id,
        id=RepositoryId(row.kind, row.namespace, row.name),
        created_at=_utc(row.created_at),
        updated_at=_utc(row.updated_at),
        private=row.private,
        gated=row.gated,
        downloads=row.downloads,
        likes=row.likes,
        downloads_all_time=row.downloads_all_time,
        trending_score=row.trending_score,
        disabled_reason=row.disabled_reason,
    )


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(
        path=row.path,
        oid=row.oid,
        size=row.size,
        sha256=row.sha256,
        is_lfs=row.is_lfs,
        last_commit=row.last_commit,
    )


def _commit(row: sa.Row[Any]) -> Commit:
    return Commit(
        oid=row.oid,
        snapshot=row.snapshot_id,
        tree_oid=row.tree_oid,
        parent_oid=row.parent_oid,
        title=row.title,
        message=row.message,
        author=row.author,
        date=_utc(row.date),
        facts=row.facts,
    )
