"""Writing a revision's files from its parent's: only what changed is computed anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.git_objects import FILE_MODE, TREE_MODE, tree_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_hub_protocol.changes import Changes
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository


@dataclass(frozen=True)
class Folders:
    """The folders above whatever changed: their tree ids, and those that are there no more."""

    ids: dict[str, str]  # '' is the root, always among them
    gone: set[str]

    @property
    def root(self) -> str:
        """The tree id of the whole revision."""
        return self.ids[""]


def changed_folders(metadata: MetadataStore, changes: Changes) -> Folders:
    """Return what git would call the folders above the changed files; others keep their ids."""
    touched: dict[str, dict[str, tuple[bytes, str] | None]] = {"": {}}
    for path, oid in [
        *((path, file.oid) for path, file in changes.put.items()),
        *((path, None) for path in changes.removed),
    ]:
        folder, name = _split(path)
        touched.setdefault(folder, {})[name] = None if oid is None else (FILE_MODE, oid)
        while folder:
            folder = _split(folder)[0]
            touched.setdefault(folder, {})
    ids: dict[str, str] = {}
    gone: set[str] = set()
    for folder in sorted(touched, key=_depth, reverse=True):
        children = _children(metadata, changes.base, folder)
        for name, child in touched[folder].items():
            if child is None:
                children.pop(name, None)
            else:
                children[name] = child
        if children or not folder:
            ids[folder] = tree_id(children)
        else:
            gone.add(folder)
        if folder:
            parent, name = _split(folder)
            # A file may stand where the folder was: only the folder itself goes.
            if folder in ids:
                touched[parent][name] = (TREE_MODE, ids[folder])
            else:
                touched[parent].setdefault(name, None)
    return Folders(ids, gone)


def write_snapshot(  # noqa: PLR0913 - a snapshot is all of this
    connection: sa.Connection,
    repository: Repository,
    changes: Changes,
    folders: Folders,
    *,
    facts: dict[str, Any],
    commit_oid: str,
) -> int:
    """Write the files of a revision beside its parent's; return the row."""
    entries = schema.entries
    key = insert(
        connection,
        schema.snapshots,
        repository_id=repository.key,
        tree_oid=folders.root,
        facts=facts,
    )
    if changes.base is not None:
        _copy(connection, changes.base.snapshot, key)
        stale = {*changes.put, *changes.removed, *folders.ids, *folders.gone}
        connection.execute(
            entries.delete().where(
                entries.c.snapshot_id == key, entries.c.path == sa.bindparam("stale_path")
            ),
            [{"stale_path": path} for path in stale],
        )
    rows = [
        _row(key, path, commit_oid, file.oid)
        | {"size": file.size, "sha256": file.sha256, "is_lfs": file.git_oid is None}
        for path, file in changes.put.items()
    ]
    rows += [_row(key, folder, commit_oid, oid) for folder, oid in folders.ids.items()]
    connection.execute(entries.insert(), rows)
    return key


def copy_snapshot(
    connection: sa.Connection, repository: Repository, commit: Commit, commit_oid: str
) -> int:
    """Write the files of a revision again, as if another commit had brought all of them."""
    key = insert(
        connection,
        schema.snapshots,
        repository_id=repository.key,
        tree_oid=commit.tree_oid,
        facts=commit.facts,
    )
    _copy(connection, commit.snapshot, key, last_commit=sa.literal(commit_oid))
    return key


def insert(connection: sa.Connection, table: sa.Table, **values: Any) -> int:  # noqa: ANN401
    """Insert one row and return its key."""
    key = connection.execute(table.insert().values(**values)).inserted_primary_key
    if key is None:  # no table here lacks one
        raise AssertionError(table.name)
    return int(key[0])


def _copy(connection: sa.Connection, old: int, new: int, **changed: sa.ColumnElement[Any]) -> None:
    entries = schema.entries
    columns = {column.name: column for column in entries.c}
    values: dict[str, sa.ColumnElement[Any]] = {
        **columns,
        "snapshot_id": sa.literal(new),
        **changed,
    }
    rows = sa.select(*(values[name] for name in columns)).where(entries.c.snapshot_id == old)
    connection.execute(entries.insert().from_select(list(columns), rows))


def _row(snapshot: int, path: str, commit_oid: str, oid: str) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot,
        "path": path,
        "parent": _split(path)[0],
        "oid": oid,
        "size": 0,
        "sha256": None,
        "is_lfs": False,
        "last_commit": commit_oid,
    }


def _children(
    metadata: MetadataStore, base: Commit | None, folder: str
) -> dict[str, tuple[bytes, str]]:
    found: Iterable[Entry] = [] if base is None else metadata.children(base, folder)
    return {
        _split(entry.path)[1]: (TREE_MODE if entry.sha256 is None else FILE_MODE, entry.oid)
        for entry in found
    }


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0
