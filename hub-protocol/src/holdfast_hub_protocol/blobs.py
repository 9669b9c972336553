"""The content store: immutable files named by their SHA-256, visible only when whole and right."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from holdfast_hub_protocol.git_objects import blob_hasher
from holdfast_hub_protocol.identifiers import is_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

CHUNK_SIZE: Final = 1 << 20
# Nothing writes to a file of `incoming` for so long: its process is gone.
LEFTOVER_SECONDS: Final = 24 * 3600
# The disk is kept busy while bytes arrive, so that the last fsync of 50 GB has little left to do.
_FLUSH_BYTES: Final = 8 << 20
# Hashing is the slower half of storing; so much at once is worth another thread for it.
_HASHED_BESIDE: Final = 1 << 20


class DigestMismatchError(Exception):
    """Content that is not what its name says; nothing was stored."""


class SizeMismatchError(Exception):
    """More or fewer bytes than were announced; nothing was stored."""


@dataclass(frozen=True)
class Content:
    """What reading a file once tells about it; `git_oid` is '' where nobody asked for it."""

    size: int
    sha256: str
    git_oid: str


@dataclass(frozen=True)
class Stored:
    """A blob as the storage lists it."""

    sha256: str
    size: int
    modified: float  # Unix seconds


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
    """A folder of blobs: `sha256/ab/abcd…`, one file each, never changed after it appears.

    Beside it `incoming` (what is not yet a blob) and `damaged` (what `check` took out of sight).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.damaged = root / "damaged"

    def create(self) -> None:
        """Make the folders, if they are not there, and remove what killed processes left."""
        for folder in (self.incoming, self.damaged, self.root / "sha256"):
            folder.mkdir(parents=True, exist_ok=True)
        self.sweep_leftovers()

    def sweep_leftovers(self, older_than: float = LEFTOVER_SECONDS) -> int:
        """Remove what nobody wrote to for `older_than` seconds; return how many there were.

        By age, not by owner: other processes and hosts may be writing beside this one.
        """
        before = time.time() - older_than
        removed = 0
        for path in self.incoming.iterdir():
            try:
                if path.stat().st_mtime >= before:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except FileNotFoundError:
                continue  # another process's sweep
            removed += 1
        return removed

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

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob for reading; FileNotFoundError if it is not there."""
        return self.path(sha256).open("rb")

    @contextmanager
    def receive(self, size: int | None = None, *, git: bool = False) -> Iterator[ReceivedFile]:
        """Take in content piece by piece: `with store.receive() as incoming: …; incoming.keep()`.

        Bytes are hashed while they are written; `size` is how many there must be. `git` also
        computes git's id, which begins with the size, so it needs one.
        """
        if git and size is None:
            raise ValueError("git's id of a blob begins with its size")
        path = self.incoming / secrets.token_hex(16)
        with path.open("xb") as file:
            hasher = blob_hasher(size or 0) if git else None
            received = ReceivedFile(self, path, file, size, hasher)
            try:
                yield received
            finally:
                received.close()
                path.unlink(missing_ok=True)  # kept, it has moved away

    def partial(self, name: str) -> PartialFile:
        """Take in content in parts; left alone for a day, it goes like other leftovers."""
        return PartialFile(self, self.incoming / f"parts-{name}")

    def add(self, source: Path, sha256: str, *, link: bool = True) -> Content:
        """Take in a file by hard link where possible, else by copy; return what it holds.

        The link or copy itself is hashed, not the source, and gets its name only if that
        agrees. Raises DigestMismatchError and leaves nothing behind otherwise.
        """
        incoming = self.incoming / secrets.token_hex(16)
        try:
            if not (link and _linked(source, incoming)):
                shutil.copyfile(source, incoming)
            return self.adopt(incoming, sha256)
        except DigestMismatchError as error:
            raise DigestMismatchError(f"{source}: {error}") from None
        finally:
            incoming.unlink(missing_ok=True)

    def adopt(self, path: Path, sha256: str) -> Content:
        """Make a file of this file system a blob by renaming it, once its content is checked."""
        with path.open("rb") as file:
            content = read_content(file)
            if content.sha256 != sha256:
                raise DigestMismatchError(f"its SHA-256 is {content.sha256}, not {sha256}")
            os.fsync(file.fileno())
        self.publish(path, sha256)
        return content

    def publish(self, path: Path, sha256: str) -> None:
        """Give a checked and synced file its name; durable when this returns."""
        final = self.path(sha256)
        final.parent.mkdir(exist_ok=True)
        # Over an old blob of this name too: that one may be damaged, this one was just read.
        path.replace(final)
        sync_folder(final.parent)
        sync_folder(final.parent.parent)

    def remove(self, sha256: str) -> None:
        """Remove a blob, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    def set_aside(self, sha256: str) -> None:
        """Move a damaged blob to `damaged`, where nothing is served from."""
        self.damaged.mkdir(exist_ok=True)
        try:
            self.path(sha256).replace(self.damaged / sha256)
        except FileNotFoundError:
            return  # nothing there to serve
        sync_folder(self.damaged)
        sync_folder(self.path(sha256).parent)

    def stored(self) -> Iterator[Stored]:
        """List the blobs, by digest; files of other names are not blobs."""
        for folder in sorted((self.root / "sha256").iterdir()):
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if not is_sha256(path.name) or not path.name.startswith(folder.name):
                    continue
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue  # removed since it was listed
                yield Stored(path.name, status.st_size, status.st_mtime)

    def strangers(self) -> Iterator[Path]:
        """List what lies among the blobs and is none, by path."""
        for path in sorted((self.root / "sha256").iterdir()):
            if not path.is_dir():
                yield path
                continue
            for blob in sorted(path.iterdir()):
                in_place = is_sha256(blob.name) and blob.name.startswith(path.name)
                if not in_place or not blob.is_file():
                    yield blob

    def set_aside_digests(self) -> list[str]:
        """List the blobs that were set aside, sorted."""
        return sorted(path.name for path in self.damaged.iterdir())

    def free_bytes(self) -> int | None:
        """Return how much more the file system takes from this user."""
        return shutil.disk_usage(self.root).free


class ReceivedFile:
    """Content on its way into a folder of blobs."""

    def __init__(
        self,
        store: BlobStore,
        path: Path,
        file: BinaryIO,
        expected: int | None,
        git: hashlib._Hash | None,
    ) -> None:
        self.size = 0
        self._store = store
        self._path = path
        self._file = file
        self._expected = expected
        self._sha256 = hashlib.sha256()
        self._git = git
        self._hashing: Future[None] | None = None
        self._unflushed = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hash and store more bytes; SizeMismatchError past the announced size."""
        self.size += len(data)
        if self._expected is not None and self.size > self._expected:
            raise SizeMismatchError(f"more than the announced {self._expected} bytes")
        self._wait()
        if len(data) < _HASHED_BESIDE:
            self._hash(data)
            self._file.write(data)
        else:
            self._hashing = self._hasher.submit(self._hash, data)
            try:
                self._file.write(data)
            finally:
                if not isinstance(data, bytes):  # the caller may use the memory again
                    self._wait()
        self._unflushed += len(data)
        if self._unflushed >= _FLUSH_BYTES:
            self._file.flush()
            # Begins to write and does not wait, as fdatasync would; what is not yet on the disk
            # stays in memory.
            begin, length = self.size - self._unflushed, self._unflushed
            os.posix_fadvise(self._file.fileno(), begin, length, os.POSIX_FADV_DONTNEED)
            self._unflushed = 0

    def _wait(self) -> None:
        """Wait until what was written before is hashed, too."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None

    def close(self) -> None:
        """Give back what it holds."""
        if "_hasher" in self.__dict__:
            self._hasher.shutdown()

    @functools.cached_property
    def _hasher(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "hash")

    def _hash(self, data: bytes | bytearray | memoryview) -> None:
        self._sha256.update(data)
        if self._git is not None:
            self._git.update(data)

    def keep(self, sha256: str | None = None) -> Content:
        """Make it a blob, durable when this returns; raise and store nothing if it is not right."""
        if self._expected is not None and self.size != self._expected:
            raise SizeMismatchError(f"{self.size} bytes instead of {self._expected}")
        self._wait()
        digest = self._sha256.hexdigest()
        if sha256 is not None and digest != sha256:
            raise DigestMismatchError(f"the content has SHA-256 {digest}, not {sha256}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._store.publish(self._path, digest)
        git_oid = "" if self._git is None else self._git.hexdigest()
        return Content(size=self.size, sha256=digest, git_oid=git_oid)


class PartialFile:
    """A file with holes, filled in any order.

    Who writes shares a lock on it, who makes it a blob has it alone: what was hashed and renamed is
    written to by nobody, however long ago their request began.
    """

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store = store
        self._path = path

    def write(self, offset: int, pieces: Iterable[bytes], size: int) -> str:
        """Store a part in its place, durably; return its SHA-256."""
        digest = hashlib.sha256()
        written = 0
        with self._locked(os.O_CREAT, fcntl.LOCK_SH) as file:
            file.seek(offset)
            for piece in pieces:
                written += len(piece)
                if written > size:
                    break
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if written != size:
            raise SizeMismatchError(f"{written} bytes or more instead of {size}")
        sync_folder(self._path.parent)
        return digest.hexdigest()

    def is_there(self) -> bool:
        """Tell whether any part is."""
        return self._path.exists()

    def keep(self, sha256: str) -> Content:
        """Make it a blob by renaming it, once its content is checked; parts under way end first."""
        with self._locked(0, fcntl.LOCK_EX):
            return self._store.adopt(self._path, sha256)

    def discard(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, flags: int, lock: int) -> Iterator[BinaryIO]:
        while True:
            descriptor = os.open(self._path, flags | os.O_RDWR, 0o666)  # less the umask
            with os.fdopen(descriptor, "r+b") as file:
                fcntl.flock(file, lock)
                if self._is(descriptor):
                    yield file
                    return
                # It became a blob, or was removed, while we waited: there is another, or none.

    def _is(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
