"""What the protocol asks of a place for blobs; blobs.py is a folder, others can stand beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from holdfast_hub_protocol.blobs import Content, Stored


class Incoming(Protocol):
    """Content on its way in; nobody can see it before `keep` returns."""

    @property
    def size(self) -> int:
        """The number of bytes written so far."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hash and store more bytes; SizeMismatchError past the announced size."""

    def keep(self, sha256: str | None = None) -> Content:
        """Make it a blob, durable when this returns; `sha256` is what it must be, if known.

        Raises DigestMismatchError or SizeMismatchError, with nothing stored.
        """


class Partial(Protocol):
    """Content that comes in parts, in any order, over several requests and processes."""

    def write(self, offset: int, pieces: Iterable[bytes], size: int) -> str:
        """Store `size` bytes from `offset` on, durably; return their SHA-256.

        Raises SizeMismatchError for more or fewer.
        """

    def is_there(self) -> bool:
        """Tell whether any part is."""

    def keep(self, sha256: str) -> Content:
        """Make it a blob if it is what it must be; DigestMismatchError, FileNotFoundError."""

    def discard(self) -> None:
        """Forget it."""


class BlobStorage(Protocol):
    """What the protocol needs of a place for blobs: a POSIX folder today.

    A blob appears whole and durable, or not at all, and never changes; that is all that a
    storage must promise, and what an object store promises too. `path` is the one call that such
    a store would answer by fetching: readers of headers and nginx want a file.
    """

    def create(self) -> None:
        """Make it ready, and remove what killed processes left behind."""

    def path(self, sha256: str) -> Path:
        """Return the local file of a blob, there or not; ValueError for a malformed digest."""

    def has(self, sha256: str, size: int) -> bool:
        """Tell whether a blob of this size is there and not known to be damaged."""

    def open(self, sha256: str) -> BinaryIO:
        """Open a blob for reading; FileNotFoundError if it is not there."""

    def receive(
        self, size: int | None = None, *, git: bool = False
    ) -> AbstractContextManager[Incoming]:
        """Take in content piece by piece; without `keep` nothing stays."""

    def partial(self, name: str) -> Partial:
        """Take in content in parts, under a name of the caller's."""

    def add(self, source: Path, sha256: str, *, link: bool = True) -> Content:
        """Take in a file of this machine, checked."""

    def remove(self, sha256: str) -> None:
        """Remove a blob, if it is there."""

    def set_aside(self, sha256: str) -> None:
        """Take a damaged blob out of sight, kept for whoever looks into it."""

    def stored(self) -> Iterator[Stored]:
        """List the blobs, by digest."""

    def free_bytes(self) -> int | None:
        """Return how much more fits; None where nobody can tell."""
