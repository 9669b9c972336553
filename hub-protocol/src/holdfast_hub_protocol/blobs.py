"""The content store: immutable files named by their SHA-256, visible only when whole and right."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from holdfast_hub_protocol.git_objects import blob_hasher
from holdfast_hub_protocol.identifiers import is_sha256

CHUNK_SIZE: Final = 1 << 20


class DigestMismatchError(Exception):
    """Content that is not what its name says; nothing was stored."""


@dataclass(frozen=True)
class Content:
    """What reading a file once tells about it."""

    size: int
    sha256: str
    git_oid: str


def read_content(file: BinaryIO) -> Content:
    """Read an open file to its end once, for its size, SHA-256 and git blob id."""
    size = os.fstat(file.fileno()).st_size
    sha256 = hashlib.sha256()
    git = blob_hasher(size)
    read = 0
    while chunk := file.read(CHUNK_SIZE):
        read += len(chunk)
        sha256.update(chunk)
        git.update(chunk)
    return Content(size=read, sha256=sha256.hexdigest(), git_oid=git.hexdigest())


class BlobStore:
    """A folder of blobs: `sha256/ab/abcd…`, one file each, never changed after it appears."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"

    def create(self) -> None:
        """Make the folders, if they are not there."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        (self.root / "sha256").mkdir(exist_ok=True)

    def relative_path(self, sha256: str) -> str:
        """Return where a blob lies below the root; raise ValueError for a malformed digest."""
        if not is_sha256(sha256):
            raise ValueError(f"not a SHA-256 digest: {sha256!r}")
        return f"sha256/{sha256[:2]}/{sha256}"

    def path(self, sha256: str) -> Path:
        """Return the path of a blob, there or not."""
        return self.root / self.relative_path(sha256)

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether a blob of this size is there; its content was checked on its way in."""
        try:
            return self.path(sha256).stat().st_size == size
        except FileNotFoundError:
            return False

    def add(self, source: Path, sha256: str, *, link: bool = True) -> Content:
        """Take in a file by hard link where possible, else by copy; return what it holds.

        The link or copy itself is hashed, not the source, and gets its name only if that
        agrees. Raises DigestMismatchError and leaves nothing behind otherwise.
        """
        final = self.path(sha256)
        with tempfile.TemporaryDirectory(dir=self._incoming) as folder:
            incoming = Path(folder) / "blob"
            if not (link and _linked(source, incoming)):
                shutil.copyfile(source, incoming)
            with incoming.open("rb") as file:
                content = read_content(file)
                if content.sha256 != sha256:
                    raise DigestMismatchError(
                        f"{source} has SHA-256 {content.sha256}, not {sha256}"
                    )
                os.fsync(file.fileno())
            final.parent.mkdir(exist_ok=True)
            incoming.replace(final)
            _sync_folder(final.parent)
            _sync_folder(final.parent.parent)
        return content


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(strict=True), target)
    except PermissionError:  # fs.protected_hardlinks: another user's file
        return False
    except OSError:
        if not source.exists():
            raise
        return False  # another file system, or one without hard links
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
