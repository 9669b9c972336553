"""Taking content out of a history: every commit that has it, or follows one, is made anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import errors, facts, schema, snapshots, writing
from holdfast_hub_protocol.admission import AdmissionError, Proposal
from holdfast_hub_protocol.changes import Changes, file_of
from holdfast_hub_protocol.git_objects import commit_content, object_id
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.staging import staged

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Repository

_PART: Final = 500


def forget_files(hub: Hub, caller: Caller, repository: Repository, digests: Collection[str]) -> int:
    """Take large files out of all commits of a repository; return how many were made anew.

    All references move to the new commits in one transaction, and the old ones are gone with it.
    The blobs stay until gc, unless something else holds them.
    """
    with writing.transaction(hub, repository) as connection:
        rewriting = _Rewriting(hub, repository, connection, digests)
        made = rewriting.run(caller)
        _forget_holdings(connection, repository.key, sorted(digests))
        writing.touch(connection, repository)
    return made


class _Rewriting:
    """One history, while it is made anew."""

    def __init__(
        self,
        hub: Hub,
        repository: Repository,
        connection: sa.Connection,
        digests: Collection[str],
    ) -> None:
        self.hub = hub
        self.repository = repository
        self.connection = connection
        self.metadata: MetadataStore = hub.metadata.within(connection)
        self.doomed_paths = self._paths(sorted(digests))
        commits = schema.commits
        query: sa.Select[Any] = (
            sa.select(commits.c.id, commits.c.oid, commits.c.parent_oid, commits.c.snapshot_id)
            .where(commits.c.repository_id == repository.key)
            .order_by(commits.c.id)
        )
        self.rows = {row.oid: row for row in connection.execute(query)}
        self.new: dict[str, Commit] = {}  # by the old commit's id

    def run(self, caller: Caller) -> int:
        """Make the commits, move the references, remove what was; return how many were made."""
        old = self._affected()
        if not old:
            return 0
        refs = [ref for ref in self.metadata.refs(self.repository) if ref.commit in old]
        for ref in refs:
            for oid in self._history(ref.commit, old):
                self.new[oid] = self._made_anew(oid)
            head = self.new[ref.commit]
            key = writing.commit_key(self.connection, self.repository, head.oid)
            if key is None:  # it was just made
                raise AssertionError(head.oid)
            writing.point(self.connection, self.repository, ref.name, key)
        for ref in refs:
            self._publish(caller, ref.name, ref.commit)
        self._remove([self.rows[oid] for oid in old])
        return len(self.new)

    def _paths(self, digests: list[str]) -> dict[int, set[str]]:
        """Return the paths to take away from each tree that has any."""
        entries, trees = schema.entries, schema.snapshots
        found: dict[int, set[str]] = {}
        for first in range(0, len(digests), _PART):
            rows = self.connection.execute(
                sa.select(entries.c.snapshot_id, entries.c.path)
                .join(trees, trees.c.id == entries.c.snapshot_id)
                .where(
                    trees.c.repository_id == self.repository.key,
                    entries.c.is_lfs,
                    entries.c.sha256.in_(digests[first : first + _PART]),
                )
            )
            for row in rows:
                found.setdefault(row.snapshot_id, set()).add(row.path)
        return found

    def _affected(self) -> set[str]:
        """Return the commits that have one of the files, and all that follow them."""
        followers: dict[str, list[str]] = {}
        for row in self.rows.values():
            if row.parent_oid is not None:
                followers.setdefault(row.parent_oid, []).append(row.oid)
        waiting = [row.oid for row in self.rows.values() if row.snapshot_id in self.doomed_paths]
        found: set[str] = set()
        while waiting:
            oid = waiting.pop()
            if oid not in found:
                found.add(oid)
                waiting += followers.get(oid, [])
        return found

    def _history(self, oid: str, old: set[str]) -> list[str]:
        """Return what is to be made anew for a commit and is not yet, oldest first."""
        found: list[str] = []
        step: str | None = oid
        while step in old and step not in self.new:
            found.append(step)
            step = self.rows[step].parent_oid
        return found[::-1]

    def _made_anew(self, oid: str) -> Commit:
        before = self.metadata.commits(self.repository, [oid])[oid]
        doomed = self.doomed_paths.get(before.snapshot, set())
        changes = Changes(before, removed=set(doomed))
        folders = snapshots.changed_folders(self.metadata, changes)
        parent = self.new.get(before.parent_oid or "")
        parent_oid = before.parent_oid if parent is None else parent.oid
        content = self._content(before, folders.root, parent_oid)
        new_oid = object_id("commit", content)
        commit = replace(
            before,
            oid=new_oid,
            tree_oid=folders.root,
            parent_oid=parent_oid,
            facts=facts.updated_facts(self.metadata, changes, self.hub.blobs.path),
        )
        snapshot = snapshots.write_snapshot(
            self.connection,
            self.repository,
            changes,
            folders,
            facts=commit.facts,
            commit_oid=new_oid,
        )
        self._rename_last_commits(snapshot, oid, new_oid)
        commit = replace(commit, snapshot=snapshot)
        writing.put_commit(self.connection, self.repository, commit, content)
        return commit

    def _content(self, before: Commit, tree: str, parent: str | None) -> bytes:
        """Return the commit as git has it: author, date and words as they were."""
        known = self.metadata.git_object(self.repository, before)
        if known is None:  # an import
            return commit_content(
                tree,
                author=f"{before.author} <{before.author}@users.invalid>",
                seconds=int(before.date.timestamp()),
                message=f"{before.title}\n\n{before.message}" if before.message else before.title,
                parents=[parent] if parent else [],
            )
        head, blank, message = known.partition(b"\n\n")
        kept = [line for line in head.split(b"\n") if not line.startswith((b"tree ", b"parent "))]
        lines = [f"tree {tree}".encode()]
        lines += [f"parent {parent}".encode()] if parent else []
        return b"\n".join([*lines, *kept]) + blank + message

    def _rename_last_commits(self, snapshot: int, oid: str, new_oid: str) -> None:
        entries = schema.entries
        here = entries.c.snapshot_id == snapshot
        names = {old: commit.oid for old, commit in self.new.items()} | {oid: new_oid}
        named = sa.select(entries.c.last_commit).where(here).distinct()
        for last in self.connection.execute(named).scalars().all():
            if last in names:
                self.connection.execute(
                    entries.update()
                    .where(here, entries.c.last_commit == last)
                    .values(last_commit=names[last])
                )

    def _publish(self, caller: Caller, ref: str, old: str) -> None:
        before, after = self.rows[old], self.new[old]
        files = [file for entry in self.metadata.files(after) if (file := file_of(entry))]
        parent = self.metadata.commits(self.repository, [old])[old]
        deleted = sorted(self.doomed_paths.get(before.snapshot_id, ()))
        proposal = Proposal(
            self.repository, ref, caller, parent, files, (), deleted, self.hub.blobs.path
        )
        try:
            self.hub.admission.published(self.connection, proposal, after.oid)
        except AdmissionError as error:
            raise errors.forbidden(str(error)) from error

    def _remove(self, rows: Sequence[sa.Row[Any]]) -> None:
        commits, trees, entries = schema.commits, schema.snapshots, schema.entries
        for row in rows:
            self.connection.execute(commits.delete().where(commits.c.id == row.id))
        for snapshot in {row.snapshot_id for row in rows}:
            used = sa.select(sa.exists().where(commits.c.snapshot_id == snapshot))
            if not self.connection.execute(used).scalar():
                self.connection.execute(entries.delete().where(entries.c.snapshot_id == snapshot))
                self.connection.execute(trees.delete().where(trees.c.id == snapshot))


def _forget_holdings(connection: sa.Connection, repository_key: int, digests: list[str]) -> None:
    """Let go of the blobs, but for content that a regular file has too."""
    entries, trees = schema.entries, schema.snapshots
    for first in range(0, len(digests), _PART):
        part = digests[first : first + _PART]
        regular = (
            sa.select(entries.c.sha256)
            .join(trees, trees.c.id == entries.c.snapshot_id)
            .where(trees.c.repository_id == repository_key, entries.c.sha256.in_(part))
        )
        here = (holdings.c.repository_id == repository_key) & holdings.c.sha256.in_(part)
        connection.execute(holdings.delete().where(here, holdings.c.sha256.not_in(regular)))
        connection.execute(
            staged.delete().where(staged.c.repository_id == repository_key, staged.c.key.in_(part))
        )
