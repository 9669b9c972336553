"""Git's own object ids, which clients compare: blobs, LFS pointers, trees, commits."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE_MODE: Final = b"100644"
TREE_MODE: Final = b"40000"


def object_id(kind: str, content: bytes) -> str:
    """Return the git id of an object: `blob`, `tree` or `commit`."""
    return _hasher(kind, len(content), content).hexdigest()


def _hasher(kind: str, size: int, content: bytes = b"") -> hashlib._Hash:
    # Git chose SHA-1; content here is verified by SHA-256, this is only its name.
    return hashlib.sha1(f"{kind} {size}\0".encode() + content, usedforsecurity=False)


def blob_hasher(size: int) -> hashlib._Hash:
    """Return a hash to feed `size` bytes to; its hex digest is the blob's git id."""
    return _hasher("blob", size)


def blob_id(content: bytes) -> str:
    """Return the git id of a file with this content."""
    return object_id("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file that stands in git for a large file."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def tree_content(entries: Mapping[str, tuple[bytes, str]]) -> bytes:
    """Return what git stores for one folder: name -> (mode, object id)."""

    def git_order(item: tuple[str, tuple[bytes, str]]) -> bytes:
        name, (mode, _) = item
        return name.encode() + (b"/" if mode == TREE_MODE else b"")

    return b"".join(
        mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid)
        for name, (mode, oid) in sorted(entries.items(), key=git_order)
    )


def tree_id(entries: Mapping[str, tuple[bytes, str]]) -> str:
    """Return the git id of one folder: name -> (mode, object id)."""
    return object_id("tree", tree_content(entries))


def folder_ids(files: Mapping[str, str]) -> dict[str, str]:
    """Return the tree id of every folder of `files` (path -> blob id); the root's key is ''."""
    folders: dict[str, dict[str, tuple[bytes, str]]] = {"": {}}
    for path, oid in files.items():
        parent, _, name = path.rpartition("/")
        folders.setdefault(parent, {})[name] = (FILE_MODE, oid)
        while parent:
            parent = parent.rpartition("/")[0]
            folders.setdefault(parent, {})
    ids: dict[str, str] = {}
    deepest_first = sorted(folders, key=lambda folder: -folder.count("/") if folder else 1)
    for folder in deepest_first:
        ids[folder] = tree_id(folders[folder])
        if folder:
            parent, _, name = folder.rpartition("/")
            folders[parent][name] = (TREE_MODE, ids[folder])
    return ids


def commit_content(
    root_tree: str, *, author: str, seconds: int, message: str, parents: Sequence[str] = ()
) -> bytes:
    """Return what git stores for a commit, written by `author` at a Unix time, UTC."""
    signature = f"{author} {seconds} +0000"
    lines = [f"tree {root_tree}", *(f"parent {parent}" for parent in parents)]
    lines += [f"author {signature}", f"committer {signature}", "", message, ""]
    return "\n".join(lines).encode()


def commit_id(
    root_tree: str, *, author: str, seconds: int, message: str, parents: Sequence[str] = ()
) -> str:
    """Return the git id of a commit, written by `author` at a Unix time, UTC."""
    content = commit_content(
        root_tree, author=author, seconds=seconds, message=message, parents=parents
    )
    return object_id("commit", content)
