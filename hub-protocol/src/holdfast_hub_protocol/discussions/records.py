"""What the store of discussions hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime

Status = Literal["draft", "open", "closed", "merged"]


@dataclass(frozen=True)
class Discussion:
    """A discussion, or a pull request if it has a base."""

    key: int
    num: int
    title: str
    status: Status
    author: str
    created_at: datetime
    base_ref: str | None = None  # where the changes are to go: refs/heads/main
    base_oid: str | None = None  # the commit they began from
    merge_oid: str | None = None  # the commit that brought them there
    comments: int = 0  # known in listings only

    @property
    def is_pull_request(self) -> bool:
        """Whether it proposes changes."""
        return self.base_ref is not None

    @property
    def ref(self) -> str:
        """The reference that its changes are committed to."""
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class Event:
    """Something said or done in a discussion; `data` is as clients read it."""

    key: str
    type: str
    author: str
    created_at: datetime
    data: dict[str, Any]
