"""What the metadata store hands out: repositories, commits and their files, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast_hub_protocol.git_objects import blob_id, lfs_pointer

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_hub_protocol.identifiers import RepositoryId


@dataclass(frozen=True)
class Repository:
    """A repository as stored; `key` is its row, `id` its name."""

    key: int
    id: RepositoryId
    created_at: datetime
    updated_at: datetime
    private: bool = True
    gated: str = ""  # '', auto or manual
    downloads: int = 0  # of the last thirty days
    likes: int = 0
    downloads_all_time: int = 0
    trending_score: int = 0
    disabled_reason: str = ""  # not '': nobody gets its files


@dataclass(frozen=True)
class Commit:
    """One revision: its id as it came, and what it holds."""

    oid: str
    snapshot: int
    tree_oid: str
    parent_oid: str | None
    title: str
    message: str
    author: str
    date: datetime
    facts: dict[str, Any] = field(repr=False)  # JSON made by facts.py


@dataclass(frozen=True)
class Entry:
    """One file or folder (then without sha256) of a commit."""

    path: str
    oid: str
    size: int
    sha256: str | None
    is_lfs: bool
    last_commit: str | None = None

    @property
    def etag(self) -> str:
        """The identity that clients store a file under: git id, or SHA-256 of an LFS file."""
        return self.sha256 if self.is_lfs and self.sha256 else self.oid

    @property
    def pointer_size(self) -> int:
        """The size in bytes of the LFS pointer in git."""
        return len(lfs_pointer(self.sha256 or "", self.size))


@dataclass(frozen=True)
class NewFile:
    """A file to publish; without `git_oid` it is an LFS file and git holds its pointer."""

    path: str
    size: int
    sha256: str
    git_oid: str | None

    @property
    def oid(self) -> str:
        """The id of the blob that stands in git."""
        return self.git_oid or blob_id(lfs_pointer(self.sha256, self.size))


@dataclass(frozen=True)
class NewCommit:
    """A revision to publish, with the id that it already has."""

    repository: RepositoryId
    oid: str
    files: tuple[NewFile, ...]
    title: str
    author: str
    date: datetime
    message: str = ""
    parent_oid: str | None = None
    git_object: bytes | None = None  # what git hashes to `oid`, if known
