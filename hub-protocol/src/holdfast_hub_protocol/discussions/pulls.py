"""Pull requests: `refs/pr/N`, what they change, whether that fits, and the merge."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from holdfast_hub_protocol import commits, errors, operations, writing
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.discussions import diff, documents, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.discussions.records import Discussion, Status
    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.records import Commit, Repository

MAX_COMMITS: Final = 1000  # of one pull request that are shown
_ATTEMPTS: Final = 5
_REF: Final = re.compile(r"refs/pr/([1-9][0-9]{0,8})")


class Announce(Protocol):
    """Puts on the record what is about to be done."""

    def __call__(self, **details: str | int) -> None:
        """Note it with these details; if this raises, it is not done."""


@dataclass(frozen=True)
class Comparison:
    """A pull request beside the branch that it is for."""

    start: Commit  # where it began
    head: Commit
    target: Commit
    changes: list[diff.Change]  # what it changes since it began
    conflicts: list[str]  # paths that the branch changed meanwhile, and otherwise


def number(ref: str) -> int | None:
    """Return the number of the pull request whose changes this reference holds."""
    match = _REF.fullmatch(ref)
    return int(match[1]) if match else None


def open_pull(  # noqa: PLR0913 - a pull request is all of this
    hub: Hub,
    caller: Caller,
    repository: Repository,
    *,
    title: str,
    description: str = "",
    base: str = "main",
    parent: str | None = None,
    status: Status = "open",
    announce: Announce | None = None,
) -> Discussion:
    """Open a pull request to a branch, from its head or from `parent` (a commit id).

    It has no changes yet: those are committed to its `ref`. HubError 404 if there is no such
    branch or commit. `announce` is told its number before anybody can see it.
    """
    target = f"refs/heads/{base}"
    start = hub.metadata.commit(repository, target)
    if start is not None and parent is not None:
        start = hub.metadata.commit(repository, parent)
    if start is None:
        raise errors.revision_not_found(parent or base)
    with writing.transaction(hub, repository) as connection:
        pull = store.add(
            connection,
            repository,
            title=title,
            author=caller.name,
            status=status,
            base_ref=target,
            base_oid=start.oid,
        )
        _comment(connection, pull, caller, description)
        key = writing.commit_key(connection, repository, start.oid)
        if key is None:
            raise errors.revision_not_found(start.oid)
        writing.point(connection, repository, pull.ref, key)
        if announce is not None:
            announce(discussion=pull.num)
    return pull


@contextmanager
def opened_pull(  # noqa: PLR0913 - as open_pull
    hub: Hub,
    caller: Caller,
    repository: Repository,
    *,
    title: str,
    description: str = "",
    base: str = "main",
    parent: str | None = None,
) -> Iterator[Discussion]:
    """Open a pull request for a commit to its `ref`; gone again if that commit fails."""
    pull = open_pull(
        hub, caller, repository, title=title, description=description, base=base, parent=parent
    )
    try:
        yield pull
    except BaseException:
        with writing.transaction(hub, repository) as connection:
            writing.unpoint(connection, repository, pull.ref)
            store.remove(connection, pull)
        raise


def check_push(hub: Hub, caller: Caller, repository: Repository, ref: str) -> None:
    """Raise HubError unless the caller may commit to this `refs/pr/N`: its author, or who writes.

    404 for a pull request that is not there, 403 for one that is closed or merged.
    """
    num = number(ref)
    with hub.metadata.engine.connect() as connection:
        pull = store.find(connection, repository, num) if num is not None else None
    if pull is None or not pull.is_pull_request:
        raise errors.revision_not_found(ref)
    if pull.status not in {"draft", "open"}:
        raise errors.forbidden(f"Pull request {pull.num} is {pull.status}: nothing is added to it")
    if pull.author != caller.name and not may_write(hub, caller, repository):
        raise errors.forbidden(f"Pull request {pull.num} is {pull.author}'s: open your own")


def may_write(hub: Hub, caller: Caller, repository: Repository) -> bool:
    """Tell whether the caller may write to the repository."""
    return hub.authorizer.may(caller, Verb.WRITE, repository.id, repository).allowed


def compare(hub: Hub, repository: Repository, pull: Discussion) -> Comparison:
    """Return what a pull request changes, and where that no longer fits its branch."""
    head = hub.metadata.commit(repository, pull.ref)
    start = hub.metadata.commit(repository, pull.base_oid or "")
    target = hub.metadata.commit(repository, pull.base_ref or "")
    if head is None or start is None or target is None:
        missing = pull.ref if head is None else pull.base_ref if target is None else pull.base_oid
        raise errors.revision_not_found(missing or pull.ref)
    with hub.metadata.engine.connect() as connection:
        changes = diff.changes(connection, start, head)
        meanwhile = [] if start.oid == target.oid else diff.changes(connection, start, target)
    return Comparison(start, head, target, changes, diff.conflicts(meanwhile, changes))


def pushed(hub: Hub, repository: Repository, pull: Discussion) -> list[Commit]:
    """Return the commits of a pull request, oldest first."""
    head = hub.metadata.commit(repository, pull.ref)
    found: list[Commit] = []
    if head is not None:
        for commit in hub.metadata.history(repository, head, MAX_COMMITS):
            if commit.oid == pull.base_oid:
                break
            found.insert(0, commit)
    return found


def merge(  # noqa: PLR0913 - a merge is all of this
    hub: Hub,
    caller: Caller,
    repository: Repository,
    pull: Discussion,
    remark: str = "",
    *,
    announce: Announce,
) -> str:
    """Bring the changes to the branch as one commit; return its id.

    HubError 400 for a draft, a closed or empty one; 409 names the files in conflict. Whoever
    calls has made sure that the caller may write. Done again after a crash, it ends the same.
    `announce` is told the commit before anybody can see it.
    """
    if pull.status != "open":
        hint = "; publish it by setting its status to open" if pull.status == "draft" else ""
        raise errors.bad_request(f"Pull request {pull.num} is {pull.status}, not open{hint}")
    merged = _commit_changes(hub, caller, repository, pull, announce)
    with writing.transaction(hub, repository) as connection:
        now = store.find(connection, repository, pull.num)
        if now is not None and now.merge_oid is not None:
            return now.merge_oid  # somebody else was faster, to the same end
        store.change(connection, pull, status="merged", merge_oid=merged)
        _comment(connection, pull, caller, remark)
        store.add_event(connection, pull, "status-change", caller.name, {"status": "merged"})
        announce(commit=merged)
    return merged


def _commit_changes(
    hub: Hub, caller: Caller, repository: Repository, pull: Discussion, announce: Announce
) -> str:
    for attempt in range(_ATTEMPTS):
        found = compare(hub, repository, pull)
        if not found.changes:
            raise errors.bad_request(f"Pull request {pull.num} changes nothing")
        if found.conflicts:
            raise _in_conflict(pull, found.conflicts)
        with hub.metadata.engine.connect() as connection:
            missing = diff.changes(connection, found.target, found.head)
        missing_paths = {change.path for change in missing}
        wanted = [change for change in found.changes if change.path in missing_paths]
        if not wanted:
            return found.target.oid  # all of it is there: an earlier merge was cut short
        try:
            return commits.make_commit(
                hub,
                caller,
                repository,
                pull.base_ref or "",
                # What goes away first: a folder may come in place of a file.
                sorted((_operation(change, found.head) for change in wanted), key=_adds),
                title=f"{pull.title} (#{pull.num})",
                message=_message(hub, caller, repository, pull),
                expected_parent=found.target.oid,
                announce=lambda commit: announce(commit=commit.oid),
            ).oid
        except commits.ConflictError:
            if attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError  # every turn of the loop returns or raises at last


def _operation(change: diff.Change, head: Commit) -> operations.Operation:
    if change.after is None:
        return operations.DeleteFile(change.path)
    return operations.CopyFile(change.path, src_path=change.path, src_revision=head.oid)


def _adds(operation: operations.Operation) -> bool:
    return not isinstance(operation, operations.DeleteFile)


def _message(hub: Hub, caller: Caller, repository: Repository, pull: Discussion) -> str:
    commits_of_pull = pushed(hub, repository, pull)
    lines = [f"- {commit.title} ({commit.oid})" for commit in commits_of_pull]
    others = sorted({commit.author for commit in commits_of_pull} - {caller.name})
    if others:
        lines += ["", *(f"Co-authored-by: {name} <{name}@users.invalid>" for name in others)]
    return "\n".join(lines)


def _in_conflict(pull: Discussion, paths: list[str]) -> errors.HubError:
    shown = ", ".join(paths[:10]) + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
    return errors.conflict(
        f"Pull request {pull.num} cannot be merged: {pull.base_ref} has changed the same files "
        f"since: {shown}"
    )


def _comment(connection: sa.Connection, pull: Discussion, caller: Caller, text: str) -> None:
    if text:
        data = documents.comment(text, caller.name, datetime.now(UTC))
        store.add_event(connection, pull, "comment", caller.name, data)
