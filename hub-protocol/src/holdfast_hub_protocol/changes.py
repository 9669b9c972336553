"""What operations come to: the files of a revision that differ from the one before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, assert_never

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_path
from holdfast_hub_protocol.operations import (
    AddFile,
    AddLfsFile,
    AddStoredFile,
    CopyFile,
    DeleteFile,
    DeleteFolder,
    Operation,
)
from holdfast_hub_protocol.records import NewFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository


@dataclass(frozen=True)
class Changes:
    """Files that a revision puts, and paths of files that it takes away, beside its parent."""

    base: Commit | None
    put: dict[str, NewFile] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)


def apply(
    metadata: MetadataStore,
    repository: Repository,
    base: Commit | None,
    operations: Sequence[Operation],
) -> Changes:
    """Return what the operations change, one after the other, in the files of `base`.

    HubError 404 for a path to delete or copy that is not there, 422 for a path that cannot be, or
    that would be a file and a folder at once.
    """
    desk = _Desk(metadata, repository, base, [_checked(operation.path) for operation in operations])
    for operation in operations:
        desk.apply(operation)
    return desk.changes()


class _Desk:
    """The files that were touched so far, over those of the base."""

    def __init__(
        self,
        metadata: MetadataStore,
        repository: Repository,
        base: Commit | None,
        paths: Sequence[str],
    ) -> None:
        self._metadata = metadata
        self._repository = repository
        self._base = base
        self._touched: dict[str, NewFile | None] = {}  # None: taken away
        self._known = self._entries({step for path in paths for step in (path, *_above(path))})

    def apply(self, operation: Operation) -> None:
        path = _checked(operation.path)
        match operation:
            case AddStoredFile():
                self._touched[path] = NewFile(
                    path, operation.size, operation.sha256, operation.git_oid
                )
            case AddLfsFile(size=None):
                raise AssertionError(path)  # commits.py has looked it up
            case AddLfsFile():
                self._touched[path] = NewFile(path, operation.size or 0, operation.sha256, None)
            case DeleteFile() | DeleteFolder():
                self._delete(path)
            case CopyFile():
                self._touched[path] = self._copied(operation)
            case AddFile():  # commits.py has stored it
                raise AssertionError(path)
            case _:
                assert_never(operation)

    def changes(self) -> Changes:
        """Return what is left to do; a file put as it was is no change."""
        put, removed = {}, set()
        for path, file in self._touched.items():
            before = self._known.get(path)
            if file is None:
                if before is not None and before.sha256 is not None:
                    removed.add(path)
            elif before is None or not _same(before, file):
                put[path] = file
        self._check_places(put)
        return Changes(self._base, put, removed)

    def _delete(self, path: str) -> None:
        """Take a file away, or a folder with all that is below; clients name folders either way."""
        file = self._file(path)
        if file is not None:
            self._touched[path] = None
            return
        below = self._files_below(path)
        if not below:
            raise _not_there(path)
        self._touched |= dict.fromkeys(below)

    def _copied(self, operation: CopyFile) -> NewFile:
        source = _checked(operation.src_path)
        if operation.src_revision is None:
            file = self._file(source)
        else:
            commit = self._metadata.commit(self._repository, operation.src_revision)
            if commit is None:
                raise errors.revision_not_found(operation.src_revision)
            entry = self._metadata.entry(commit, source)
            file = None if entry is None else file_of(entry)
        if file is None:
            raise _not_there(source)
        return NewFile(_checked(operation.path), file.size, file.sha256, file.git_oid)

    def _file(self, path: str) -> NewFile | None:
        if path in self._touched:
            return self._touched[path]
        if path not in self._known:
            self._known |= self._entries({path})
        entry = self._known.get(path)
        return None if entry is None else file_of(entry)

    def _files_below(self, folder: str) -> list[str]:
        before = [] if self._base is None else self._metadata.files_below(self._base, folder)
        self._known |= {entry.path: entry for entry in before}
        below = [entry.path for entry in before if entry.path not in self._touched]
        return below + [
            path
            for path, file in self._touched.items()
            if file is not None and path.startswith(f"{folder}/")
        ]

    def _check_places(self, put: Iterable[str]) -> None:
        """Raise HubError 422 for a path that would be a file and a folder at once."""
        files = [path for path, file in self._touched.items() if file is not None]
        folders = {folder for path in files for folder in _above(path)}
        for path in put:
            entry = self._known.get(path)
            was_folder = entry is not None and entry.sha256 is None
            if path in folders or (was_folder and self._files_below(path)):
                raise _file_and_folder(path)
        for folder in folders:
            if self._file(folder) is not None:
                raise _file_and_folder(folder)

    def _entries(self, paths: set[str]) -> dict[str, Entry]:
        if self._base is None:
            return {}
        found = self._metadata.entries_at(self._base, sorted(paths))
        return {entry.path: entry for entry in found}


def _checked(path: str) -> str:
    try:
        return checked_path(path.rstrip("/") or path)
    except BadIdentifierError as error:
        raise errors.unprocessable(str(error)) from error


def _not_there(path: str) -> errors.HubError:
    # The client gives a hint about folders where it sees these words.
    return errors.HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")


def _file_and_folder(path: str) -> errors.HubError:
    return errors.unprocessable(f"{path} would be both a file and a folder")


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _same(entry: Entry, file: NewFile) -> bool:
    return (entry.sha256, entry.is_lfs) == (file.sha256, file.git_oid is None)


def file_of(entry: Entry) -> NewFile | None:
    """Return a file of a revision as one to publish; None for a folder."""
    if entry.sha256 is None:
        return None
    return NewFile(entry.path, entry.size, entry.sha256, None if entry.is_lfs else entry.oid)
