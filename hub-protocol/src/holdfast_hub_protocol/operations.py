"""What a commit does, one value for each change, in the order in which they are applied."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AddFile:
    """Put a file that git holds itself; its content is stored on the way."""

    path: str
    content: bytes


@dataclass(frozen=True)
class AddStoredFile:
    """Put a file that git holds itself, whose content is in the blob store already."""

    path: str
    sha256: str
    size: int
    git_oid: str


@dataclass(frozen=True)
class AddLfsFile:
    """Put a large file that was uploaded before; without a size it is the stored one's."""

    path: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class DeleteFile:
    """Take a file away."""

    path: str


@dataclass(frozen=True)
class DeleteFolder:
    """Take a folder away with everything below it."""

    path: str


@dataclass(frozen=True)
class CopyFile:
    """Put what another path, or another revision, holds."""

    path: str
    src_path: str
    src_revision: str | None = None  # None: the commit that this one follows


Operation = AddFile | AddStoredFile | AddLfsFile | DeleteFile | DeleteFolder | CopyFile
