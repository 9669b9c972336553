"""Making a revision visible: all of it in one transaction, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.git_objects import folder_ids
from holdfast_hub_protocol.holdings import hold
from holdfast_hub_protocol.identifiers import checked_path, is_commit, is_sha256
from holdfast_hub_protocol.listings import index_repository
from holdfast_hub_protocol.staging import commit_staged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from holdfast_hub_protocol.records import NewCommit, NewFile


class ConflictError(Exception):
    """What is to be published contradicts itself or what is there; nothing was written."""


@dataclass(frozen=True)
class Published:
    """The row of the repository, and whether anything had to be written."""

    repository_key: int
    changed: bool


def publish(
    connection: sa.Connection, commit: NewCommit, facts: dict[str, Any], *, refs: Iterable[str]
) -> Published:
    """Record a commit whose blobs are all stored, and point `refs` (full names) at it.

    Doing it again changes nothing. Raises ConflictError if the same commit id is known with
    other files, or if paths or digests are malformed.
    """
    folders = _check(commit)
    repository_key, created = _repository(connection, commit)
    known = connection.execute(
        sa.select(schema.commits.c.id, schema.snapshots.c.tree_oid, schema.snapshots.c.id)
        .join(schema.snapshots, schema.snapshots.c.id == schema.commits.c.snapshot_id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == commit.oid)
    ).one_or_none()
    if known is None:
        snapshot_key = _snapshot(connection, repository_key, commit, folders, facts)
        commit_key = _insert(
            connection,
            schema.commits,
            repository_id=repository_key,
            oid=commit.oid,
            snapshot_id=snapshot_key,
            parent_oid=commit.parent_oid,
            title=commit.title,
            message=commit.message,
            author=commit.author,
            date=commit.date,
            object=commit.git_object,
        )
    else:
        commit_key, tree_oid, snapshot_key = known
        if tree_oid != folders[""]:
            raise ConflictError(
                f"commit {commit.oid} of {commit.repository} is known here with other files"
            )
        _check_digests(connection, snapshot_key, commit.files)
    pointed = list(refs)
    hold(
        connection,
        repository_key,
        commit.files,
        ref=pointed[0] if pointed else "",
        date=commit.date,
    )
    commit_staged(connection, repository_key, commit.files)
    moved = [_point(connection, repository_key, ref, commit_key) for ref in pointed]
    changed = created or known is None or any(moved)
    if changed:
        touch(connection, repository_key, commit.date)
        index_repository(connection, repository_key)
    return Published(repository_key=repository_key, changed=changed)


def touch(connection: sa.Connection, repository_key: int, date: datetime) -> None:
    """Note when a repository last changed."""
    connection.execute(
        schema.repositories.update()
        .where(schema.repositories.c.id == repository_key)
        .values(updated_at=date)
    )


def _check(commit: NewCommit) -> dict[str, str]:
    if not is_commit(commit.oid):
        raise ConflictError(f"not a commit id of 40 hex digits: {commit.oid!r}")
    paths: dict[str, str] = {}
    for file in commit.files:
        try:
            checked_path(file.path)
        except ValueError as error:
            raise ConflictError(f"{commit.repository}: {error}") from error
        if not is_sha256(file.sha256) or not is_commit(file.oid) or file.size < 0:
            raise ConflictError(f"{commit.repository}: malformed digest or size of {file.path}")
        if file.path in paths:
            raise ConflictError(f"{commit.repository}: {file.path} is listed twice")
        paths[file.path] = file.oid
    folders = folder_ids_or_conflict(commit, paths)
    for folder in folders:
        if folder in paths:
            raise ConflictError(f"{commit.repository}: {folder} is both a file and a folder")
    return folders


def folder_ids_or_conflict(commit: NewCommit, paths: dict[str, str]) -> dict[str, str]:
    """Return the tree ids of a commit's folders; raise ConflictError for names git cannot hold."""
    try:
        return folder_ids(paths)
    except UnicodeEncodeError as error:
        raise ConflictError(f"{commit.repository}: a path is not UTF-8") from error


def _repository(connection: sa.Connection, commit: NewCommit) -> tuple[int, bool]:
    table, name = schema.repositories, commit.repository
    key = connection.execute(
        sa.select(table.c.id).where(table.c.kind == name.kind, table.c.folded == name.folded)
    ).scalar_one_or_none()
    if key is not None:
        # Before anything else of it is written: who commits to it does so in this order, too.
        connection.execute(
            table.update().where(table.c.id == key).values(updated_at=table.c.updated_at)
        )
        return key, False
    return (
        _insert(
            connection,
            table,
            kind=name.kind,
            namespace=name.namespace,
            name=name.name,
            folded=name.folded,
            created_at=commit.date,
            updated_at=commit.date,
        ),
        True,
    )


def _snapshot(
    connection: sa.Connection,
    repository_key: int,
    commit: NewCommit,
    folders: dict[str, str],
    facts: dict[str, Any],
) -> int:
    table = schema.snapshots
    found = connection.execute(
        sa.select(table.c.id)
        .where(table.c.repository_id == repository_key, table.c.tree_oid == folders[""])
        .order_by(table.c.id)
        .limit(1)
    ).scalar_one_or_none()
    if found is not None:
        _check_digests(connection, found, commit.files)
        return int(found)
    key = _insert(
        connection, table, repository_id=repository_key, tree_oid=folders[""], facts=facts
    )
    rows: list[dict[str, Any]] = [
        {
            "snapshot_id": key,
            "path": file.path,
            "parent": file.path.rpartition("/")[0],
            "oid": file.oid,
            "size": file.size,
            "sha256": file.sha256,
            "is_lfs": file.git_oid is None,
            "last_commit": commit.oid,
        }
        for file in commit.files
    ]
    rows += [
        {
            "snapshot_id": key,
            "path": folder,
            "parent": folder.rpartition("/")[0],
            "oid": oid,
            "size": 0,
            "sha256": None,
            "is_lfs": False,
            "last_commit": commit.oid,
        }
        for folder, oid in folders.items()
    ]
    connection.execute(schema.entries.insert(), rows)
    return key


def _check_digests(
    connection: sa.Connection, snapshot_key: int, files: tuple[NewFile, ...]
) -> None:
    # A tree id rests on SHA-1, for which two contents of one id can be made.
    table = schema.entries
    rows = connection.execute(
        sa.select(table.c.path, table.c.sha256).where(
            table.c.snapshot_id == snapshot_key, table.c.sha256.is_not(None)
        )
    )
    if {row.path: row.sha256 for row in rows} != {file.path: file.sha256 for file in files}:
        raise ConflictError("the same git tree is known here with files of other SHA-256 digests")


def _point(connection: sa.Connection, repository_key: int, ref: str, commit_key: int) -> bool:
    table = schema.refs
    where = (table.c.repository_id == repository_key) & (table.c.name == ref)
    current = connection.execute(sa.select(table.c.commit_id).where(where)).scalar_one_or_none()
    if current == commit_key:
        return False
    if current is None:
        connection.execute(
            table.insert().values(repository_id=repository_key, name=ref, commit_id=commit_key)
        )
    else:
        connection.execute(table.update().where(where).values(commit_id=commit_key))
    return True


def _insert(connection: sa.Connection, table: sa.Table, **values: Any) -> int:  # noqa: ANN401
    key = connection.execute(table.insert().values(**values)).inserted_primary_key
    if key is None:  # no table here lacks one
        raise AssertionError(table.name)
    return int(key[0])
