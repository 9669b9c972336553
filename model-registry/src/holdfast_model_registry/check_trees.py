"""Whether git's own ids recompute: of files, of the folders that hold them, and of commits."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.git_objects import blob_id, folder_ids, lfs_pointer, object_id

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

_RESTORE: Final = "restore the database from a backup"


def check_trees(connection: sa.Connection, checked: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Find trees whose ids are not those of what they hold."""
    entries, snapshots, repositories = schema.entries, schema.snapshots, schema.repositories
    trees = (
        sa.select(
            snapshots.c.id,
            snapshots.c.tree_oid,
            (repositories.c.namespace + "/" + repositories.c.name).label("name"),
        )
        .join(repositories, repositories.c.id == snapshots.c.repository_id)
        .order_by(snapshots.c.id)
    )
    rows: sa.Select[Any] = sa.select(
        entries.c.snapshot_id,
        entries.c.path,
        entries.c.parent,
        entries.c.oid,
        entries.c.size,
        entries.c.sha256,
        entries.c.is_lfs,
    ).order_by(entries.c.snapshot_id)
    options = {"yield_per": 10_000}
    with (
        connection.execute(rows, execution_options=options) as of_files,
        connection.execute(trees, execution_options=options) as of_trees,
    ):
        groups = groupby(of_files, key=attrgetter("snapshot_id"))
        key, group = next(groups, (None, iter(())))
        for tree in of_trees:
            while key is not None and key < tree.id:
                key, group = next(groups, (None, iter(())))
            found = list(group) if key == tree.id else []
            checked["trees"] += 1
            problem = _tree_problem(tree.tree_oid, found)
            if problem:
                yield "tree-wrong", f"tree {tree.tree_oid} of {tree.name}: {problem}", _RESTORE


def _tree_problem(tree_oid: str, rows: list[sa.Row[Any]]) -> str:
    """Return the first thing that is wrong with a tree; '' if nothing is."""
    files = {row.path: row.oid for row in rows if row.sha256 is not None}
    folders = {row.path: row.oid for row in rows if row.sha256 is None}
    for row in rows:
        if row.parent != row.path.rpartition("/")[0]:
            return f"{row.path!r} is listed in folder {row.parent!r}"
        if row.is_lfs and row.oid != blob_id(lfs_pointer(row.sha256, row.size)):
            return f"{row.path!r} has another id than its LFS pointer"
    computed = folder_ids(files)
    if computed[""] != tree_oid:
        return f"its files make the tree {computed['']}"
    for path, oid in computed.items():
        if folders.get(path) != oid:
            return f"folder {path!r} is recorded as {folders.get(path)}, and is {oid}"
    if extra := sorted(set(folders) - set(computed)):
        return f"folder {extra[0]!r} holds nothing"
    return ""


def check_commits(
    connection: sa.Connection, checked: Counter[str]
) -> Iterator[tuple[str, str, str]]:
    """Find commits that are not what their id says, or whose history breaks off."""
    commits, snapshots, repositories = schema.commits, schema.snapshots, schema.repositories
    parent = commits.alias()
    query: sa.Select[Any] = (
        sa.select(
            commits.c.oid,
            commits.c.object,
            commits.c.parent_oid,
            snapshots.c.tree_oid,
            snapshots.c.repository_id.label("tree_of"),
            commits.c.repository_id,
            parent.c.id.label("parent_id"),
            (repositories.c.namespace + "/" + repositories.c.name).label("name"),
        )
        .select_from(commits)
        .join(snapshots, snapshots.c.id == commits.c.snapshot_id)
        .join(repositories, repositories.c.id == commits.c.repository_id)
        .outerjoin(
            parent,
            (parent.c.repository_id == commits.c.repository_id)
            & (parent.c.oid == commits.c.parent_oid),
        )
        .order_by(commits.c.id)
    )
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        checked["commits"] += 1
        problem = _commit_problem(row)
        if problem:
            yield "commit-wrong", f"commit {row.oid} of {row.name} {problem}", _RESTORE


def _commit_problem(row: sa.Row[Any]) -> str:
    """Return what is wrong with a commit; '' if nothing is."""
    if row.tree_of != row.repository_id:
        return "has the tree of another repository"
    if row.object is None:  # an import keeps the id that it came with, and has no history here
        return ""
    lines = row.object.split(b"\n\n", 1)[0].decode(errors="replace").split("\n")
    parents = [line.removeprefix("parent ") for line in lines if line.startswith("parent ")]
    problem = ""
    if object_id("commit", row.object) != row.oid:
        problem = "does not hash to its id"
    elif lines[0] != f"tree {row.tree_oid}":
        problem = f"says {lines[0]!r}, and is recorded with tree {row.tree_oid}"
    elif (parents[0] if parents else None) != row.parent_oid:
        problem = f"says parents {parents}, and is recorded with {row.parent_oid}"
    elif row.parent_oid is not None and row.parent_id is None:
        problem = f"follows {row.parent_oid}, which is not there"
    return problem
