"""A repository as a bare git repository that stock git reads, with its history and LFS files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.git_objects import (
    FILE_MODE,
    TREE_MODE,
    commit_content,
    lfs_pointer,
    object_id,
    tree_content,
)
from holdfast_hub_protocol.git_packs import PackWriter
from holdfast_hub_protocol.metadata import MAIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_hub_protocol.blob_storage import BlobStorage
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository

_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_CHUNK: Final = 1 << 20


@dataclass
class Exported:
    """What was written; `foreign` has the commits that git knows by another id (-> the new one)."""

    objects: int = 0
    lfs_files: int = 0
    foreign: dict[str, str] = field(default_factory=dict)


def export_git(
    metadata: MetadataStore,
    blobs: BlobStorage,
    repository: Repository,
    folder: Path,
    *,
    lfs: bool = True,
) -> Exported:
    """Write a repository into a new folder as git has it: branches, tags, pull requests, history.

    Commits made here keep their ids. One that was imported with an id from elsewhere cannot, for
    git computes ids from content that did not come along: references to it lead to a commit of
    the same files, and history ends where it would go on with it. LFS files lie where `git lfs`
    looks for them, as copies, or with `lfs=False` nowhere. FileExistsError if the folder is
    there; FileNotFoundError if a blob is not.
    """
    folder.mkdir(parents=True)
    for name in ("objects/pack", "refs/heads", "refs/tags"):
        (folder / name).mkdir(parents=True)
    return _Export(metadata, blobs, repository, folder, lfs=lfs).run()


class _Export:
    def __init__(
        self,
        metadata: MetadataStore,
        blobs: BlobStorage,
        repository: Repository,
        folder: Path,
        *,
        lfs: bool,
    ) -> None:
        self._lfs = lfs
        self._metadata = metadata
        self._blobs = blobs
        self._repository = repository
        self._folder = folder
        self._pack = PackWriter(folder / "objects/pack")
        self._shallow: set[str] = set()
        self._done: set[str] = set()
        self._exported = Exported()

    def run(self) -> Exported:
        lines = ["# pack-refs with: peeled fully-peeled sorted"]
        for ref in self._metadata.refs(self._repository):
            commit = self._metadata.head(self._repository, ref.name)
            if commit is not None:
                self._history(commit)
                oid = self._exported.foreign.get(commit.oid, commit.oid)
                lines.append(f"{oid} {ref.name}")
        self._pack.finish()
        if self._shallow:
            self._write("shallow", "".join(f"{oid}\n" for oid in sorted(self._shallow)))
        self._write("packed-refs", "".join(f"{line}\n" for line in lines))
        self._write("config", _CONFIG)
        self._write("HEAD", f"ref: {MAIN}\n")
        self._exported.objects = len(self._pack)
        return self._exported

    def _history(self, start: Commit) -> None:
        commit: Commit | None = start
        while commit is not None and commit.oid not in self._done:
            self._done.add(commit.oid)
            content = self._metadata.git_object(self._repository, commit)
            self._files(commit)
            if content is None:
                self._stand_in(commit)
                return
            self._pack.add("commit", commit.oid, len(content), [content])
            if commit.parent_oid is None:
                return
            parent = self._metadata.commits(self._repository, [commit.parent_oid])
            commit_before = commit
            commit = parent.get(commit.parent_oid)
            if commit is None or self._metadata.git_object(self._repository, commit) is None:
                self._shallow.add(commit_before.oid)
                return

    def _stand_in(self, commit: Commit) -> None:
        content = commit_content(
            commit.tree_oid,
            author=f"{commit.author} <{commit.author}@users.invalid>",
            seconds=int(commit.date.timestamp()),
            message=f"{commit.title}\n\n{commit.message}\n\nImported-Commit: {commit.oid}",
        )
        oid = object_id("commit", content)
        self._pack.add("commit", oid, len(content), [content])
        self._exported.foreign[commit.oid] = oid

    def _files(self, commit: Commit) -> None:
        """Write the trees and blobs of a commit that none before it had."""
        if commit.tree_oid in self._pack:
            return
        folders: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
        ids = {"": commit.tree_oid}
        for entry in self._metadata.entries(commit):
            parent, _, name = entry.path.rpartition("/")
            mode = FILE_MODE
            if entry.sha256 is None:
                mode, ids[entry.path] = TREE_MODE, entry.oid
            else:
                self._blob(entry, entry.sha256)
            folders.setdefault(parent, {})[name] = mode, entry.oid
        for path, oid in ids.items():
            content = tree_content(folders.get(path, {}))
            self._pack.add("tree", oid, len(content), [content])

    def _blob(self, entry: Entry, sha256: str) -> None:
        if entry.oid in self._pack:
            return
        if entry.is_lfs:
            pointer = lfs_pointer(sha256, entry.size)
            self._pack.add("blob", entry.oid, len(pointer), [pointer])
            if self._lfs:
                self._large(sha256)
        else:
            self._pack.add("blob", entry.oid, entry.size, self._read(sha256))

    def _large(self, sha256: str) -> None:
        target = self._folder / "lfs/objects" / sha256[:2] / sha256[2:4] / sha256
        target.parent.mkdir(parents=True, exist_ok=True)
        # No hard link: whoever works on the export must not be able to change a blob.
        with self._blobs.open(sha256) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
        self._exported.lfs_files += 1

    def _read(self, sha256: str) -> Iterator[bytes]:
        with self._blobs.open(sha256) as file:
            while data := file.read(_CHUNK):
                yield data

    def _write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text, encoding="utf-8")
