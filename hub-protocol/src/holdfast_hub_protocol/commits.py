"""Making a commit: operations on a branch become a revision, visible whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, overload

from holdfast_hub_protocol import changes, errors, facts, snapshots, writing
from holdfast_hub_protocol.admission import AdmissionError, DisabledError, Proposal
from holdfast_hub_protocol.attributes import with_large_files_named
from holdfast_hub_protocol.git_objects import commit_content, object_id
from holdfast_hub_protocol.holdings import MissingBlobError, check_blobs, hold
from holdfast_hub_protocol.identifiers import is_sha256
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.operations import (
    AddFile,
    AddLfsFile,
    AddStoredFile,
    CopyFile,
    Operation,
)
from holdfast_hub_protocol.records import Commit, NewFile
from holdfast_hub_protocol.staging import commit_staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Repository

# A commit is prepared beside those of other processes, and alone only if the branch has moved
# each time.
_ATTEMPTS: Final = 3
_BAD_IN_SIGNATURE: Final = re.compile(r"[\x00-\x1f\x7f<>]")


class ConflictError(errors.HubError):
    """The branch is not where the client believes it to be (412); nothing was written."""

    def __init__(self) -> None:
        # Clients of several ages look for one sentence or the other.
        super().__init__(
            412,
            "A commit has happened since. Please refresh and try again. The branch was updated "
            "since you opened this page. Please refresh and try again.",
        )


def make_commit(  # noqa: PLR0913 - a commit is all of this
    hub: Hub,
    caller: Caller,
    repository: Repository,
    ref: str,
    operations: Iterable[Operation],
    *,
    title: str,
    message: str = "",
    expected_parent: str | None = None,
    announce: Callable[[Commit], None] | None = None,
) -> Commit:
    """Commit operations to a full reference name, making it if there is none; return the commit.

    `expected_parent` is the commit id, or its first digits, that the reference must be at
    (ConflictError). What whoever holds the policy refuses is a HubError 403 with their words; a
    large file that was not uploaded, or that the caller may not use, is one of 400. `announce`
    is told of the commit before anybody can see it; if it raises, there is none.
    """
    wanted = _Wanted(
        hub, caller, repository, ref, _stored(hub, caller, repository, operations), title, message,
        expected_parent, announce,
    )  # fmt: skip
    with writing.turn(hub, repository):
        for _ in range(_ATTEMPTS):
            draft = _Draft(wanted, hub.metadata)
            draft.admit()
            with writing.transaction(hub, repository) as connection:
                check_files(connection, hub, draft.changes.put.values())
                if writing.head_oid(connection, repository, ref) == draft.parent_oid:
                    return draft.publish(connection)
        with writing.transaction(hub, repository) as connection:
            draft = _Draft(wanted, hub.metadata.within(connection))
            draft.admit()
            check_files(connection, hub, draft.changes.put.values())
            return draft.publish(connection)


def first_commit(
    connection: sa.Connection,
    hub: Hub,
    caller: Caller,
    repository: Repository,
    files: Sequence[AddStoredFile],
) -> Commit:
    """Make main of a new repository, in the transaction that makes it.

    Nobody is asked to admit it: it holds what the protocol itself puts there.
    """
    wanted = _Wanted(hub, caller, repository, MAIN, files, "initial commit", "", None, None)
    draft = _Draft(wanted, hub.metadata.within(connection))
    check_files(connection, hub, draft.changes.put.values())
    return draft.publish(connection)


def squash_branch(  # noqa: PLR0913 - as make_commit
    hub: Hub,
    caller: Caller,
    repository: Repository,
    ref: str,
    *,
    title: str,
    message: str,
    announce: Callable[[Commit], None],
) -> Commit:
    """Point a branch or pull request at a new commit without a parent, of the same files."""
    with writing.transaction(hub, repository) as connection:
        head = hub.metadata.within(connection).head(repository, ref)
        if head is None:
            raise errors.revision_not_found(ref.removeprefix("refs/heads/"))
        date = _now()
        content = _content(head.tree_oid, caller, date, title, message, parent=None)
        oid = object_id("commit", content)
        squashed = replace(
            head,
            oid=oid,
            snapshot=snapshots.copy_snapshot(connection, repository, head, oid),
            parent_oid=None,
            title=title,
            message=message,
            author=caller.name,
            date=date,
        )
        key = writing.put_commit(connection, repository, squashed, content)
        writing.point(connection, repository, ref, key)
        writing.touch(connection, repository)
        files = _Files(hub.metadata.within(connection), changes.Changes(head))
        try:
            hub.admission.published(
                connection,
                Proposal(repository, ref, caller, head, files, (), (), hub.blobs.path),
                oid,
            )
        except AdmissionError as error:
            raise errors.forbidden(str(error)) from error
        announce(squashed)
        return squashed


def check_files(connection: sa.Connection, hub: Hub, files: Iterable[NewFile]) -> None:
    """Raise HubError 400 unless the blobs of files are there, and stay until the commit."""
    try:
        check_blobs(connection, hub.blobs, files)
    except MissingBlobError as error:
        raise errors.bad_request(str(error)) from error


def store_file(hub: Hub, path: str, content: bytes) -> AddStoredFile:
    """Put the content of a file that git holds itself in the blob store."""
    with hub.blobs.receive(len(content), git=True) as incoming:
        incoming.write(content)
        kept = incoming.keep()
    return AddStoredFile(path, kept.sha256, kept.size, kept.git_oid)


def signature(caller: Caller) -> str:
    """Return `name <email>` as git writes it."""
    name, email = (_BAD_IN_SIGNATURE.sub("", text).strip() for text in (caller.name, caller.email))
    return f"{name} <{email}>"


@dataclass(frozen=True)
class _Wanted:
    hub: Hub
    caller: Caller
    repository: Repository
    ref: str
    operations: Sequence[Operation]
    title: str
    message: str
    expected_parent: str | None
    announce: Callable[[Commit], None] | None


class _Draft:
    """A commit as it would be on top of where the reference is now."""

    def __init__(self, wanted: _Wanted, metadata: MetadataStore) -> None:
        self._wanted = wanted
        parent = metadata.head(wanted.repository, wanted.ref)
        expected = wanted.expected_parent
        if expected and (parent is None or not parent.oid.startswith(expected.lower())):
            raise ConflictError
        self.parent = parent
        found = changes.apply(metadata, wanted.repository, parent, wanted.operations)
        self.changes = with_large_files_named(metadata, wanted.hub.blobs, found)
        self._folders = snapshots.changed_folders(metadata, self.changes)
        self._facts = facts.updated_facts(metadata, self.changes, wanted.hub.blobs.path)
        self._proposal = Proposal(
            repository=wanted.repository,
            ref=wanted.ref,
            caller=wanted.caller,
            parent=parent,
            files=_Files(metadata, self.changes),
            changed=tuple(self.changes.put.values()),
            deleted=tuple(sorted(self.changes.removed)),
            blob=wanted.hub.blobs.path,
            sources=_sources(metadata, wanted.repository, wanted.operations),
        )

    @property
    def parent_oid(self) -> str | None:
        return None if self.parent is None else self.parent.oid

    def admit(self) -> None:
        try:
            self._wanted.hub.admission.admit(self._proposal)
        except AdmissionError as error:
            raise errors.forbidden(str(error)) from error

    def publish(self, connection: sa.Connection) -> Commit:
        wanted, key = self._wanted, self._wanted.repository.key
        date = _now()
        content = _content(
            self._folders.root,
            wanted.caller,
            date,
            wanted.title,
            wanted.message,
            parent=self.parent_oid,
        )
        oid = object_id("commit", content)
        snapshot = self._snapshot(connection, oid)
        commit = Commit(
            oid=oid,
            snapshot=snapshot,
            tree_oid=self._folders.root,
            parent_oid=self.parent_oid,
            title=wanted.title,
            message=wanted.message,
            author=wanted.caller.name,
            date=date,
            facts=self._facts,
        )
        commit_key = writing.put_commit(connection, wanted.repository, commit, content)
        writing.point(connection, wanted.repository, wanted.ref, commit_key)
        writing.touch(connection, wanted.repository)
        hold(connection, key, self.changes.put.values(), ref=wanted.ref, date=date)
        commit_staged(connection, key, self.changes.put.values())
        try:
            wanted.hub.admission.published(connection, self._proposal, oid)
        except AdmissionError as error:
            raise errors.forbidden(str(error)) from error
        if wanted.announce is not None:
            wanted.announce(commit)
        return commit

    def _snapshot(self, connection: sa.Connection, oid: str) -> int:
        if self.parent is not None and not self.changes.put and not self.changes.removed:
            return self.parent.snapshot
        return snapshots.write_snapshot(
            connection,
            self._wanted.repository,
            self.changes,
            self._folders,
            facts=self._facts,
            commit_oid=oid,
        )


class _Files(Sequence[NewFile]):
    """All files of a revision to be, read from the database only if somebody looks."""

    def __init__(self, metadata: MetadataStore, found: changes.Changes) -> None:
        self._metadata = metadata
        self._changes = found
        # Not a cached_property: its lock is everybody's, and this one asks the database.
        self._found: tuple[NewFile, ...] | None = None

    @property
    def _all(self) -> tuple[NewFile, ...]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def _read(self) -> tuple[NewFile, ...]:
        base = self._changes.base
        before = [] if base is None else self._metadata.files(base)
        kept = {
            file.path: file
            for file in map(changes.file_of, before)
            if file is not None and file.path not in self._changes.removed
        }
        files = kept | self._changes.put
        return tuple(files[path] for path in sorted(files, key=str.encode))

    @overload
    def __getitem__(self, index: int) -> NewFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[NewFile, ...]: ...
    def __getitem__(self, index: int | slice) -> NewFile | tuple[NewFile, ...]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[NewFile]:
        return iter(self._all)


def _now() -> datetime:
    """Return the present moment as git knows it, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _content(  # noqa: PLR0913 - what a commit says
    tree: str, caller: Caller, date: datetime, title: str, message: str, *, parent: str | None
) -> bytes:
    return commit_content(
        tree,
        author=signature(caller),
        seconds=int(date.timestamp()),
        message=f"{title}\n\n{message}" if message else title,
        parents=[parent] if parent else [],
    )


def _stored(
    hub: Hub, caller: Caller, repository: Repository, operations: Iterable[Operation]
) -> list[Operation]:
    """Return the operations with all content in the blob store, and known to be the caller's."""
    found: list[Operation] = [
        store_file(hub, operation.path, operation.content)
        if isinstance(operation, AddFile)
        else operation
        for operation in operations
    ]
    for source in _sources(hub.metadata, repository, found):
        _check_source(hub, caller, repository, source)
    # What comes inside a commit counts too: against what was pledged for it, not on top.
    hub.staging.count(
        repository,
        {each.sha256: each.size for each in found if isinstance(each, AddStoredFile)},
    )
    large = [operation for operation in found if isinstance(operation, AddLfsFile)]
    if not large:
        return found
    sizes = _sizes(hub, repository, large)
    usable = hub.staging.usable_of(caller, repository, sizes)
    missing = [operation.path for operation in large if operation.sha256 not in usable]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        raise errors.bad_request(
            f"The content of {shown} was not uploaded here: upload it, then commit again"
        )
    return [
        AddLfsFile(operation.path, operation.sha256, sizes[operation.sha256])
        if isinstance(operation, AddLfsFile)
        else operation
        for operation in found
    ]


def _sources(
    metadata: MetadataStore, repository: Repository, operations: Iterable[Operation]
) -> list[Commit]:
    """Return the commits that are named to copy from; those from the parent are held as it is."""
    copies = (each for each in operations if isinstance(each, CopyFile))
    revisions = sorted({each.src_revision for each in copies if each.src_revision})
    return [found for each in revisions if (found := metadata.commit(repository, each))]


def _check_source(hub: Hub, caller: Caller, repository: Repository, source: Commit) -> None:
    """Raise HubError 403 unless the caller would be sent the files of what they copy from."""
    try:
        hub.admission.check_fetch(caller, repository, source)
    except DisabledError as error:
        raise errors.disabled(str(error)) from error


def _sizes(hub: Hub, repository: Repository, large: Sequence[AddLfsFile]) -> dict[str, int]:
    """Return the size of each digest as clients say it; for what they copy they say none."""
    sizes: dict[str, int] = {}
    unknown: list[str] = []
    for operation in large:
        if not is_sha256(operation.sha256):
            raise errors.bad_request(f"not a SHA-256 digest: {operation.sha256[:80]!r}")
        if operation.size is None:
            unknown.append(operation.sha256)
        elif sizes.setdefault(operation.sha256, operation.size) != operation.size:
            raise errors.bad_request(f"{operation.path}: one digest with two sizes")
    if unknown:
        sizes = hub.staging.sizes(repository.key, unknown) | sizes
    for digest in unknown:
        if digest not in sizes:
            raise errors.bad_request(f"The content with SHA-256 {digest} was not uploaded here")
    return sizes
