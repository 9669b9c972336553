"""What the protocol asks before content goes in or out: whoever holds the policy may refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.records import Commit, NewFile, Repository


class AdmissionError(Exception):
    """What was proposed is refused; the message reaches the client (403). Nothing is published."""


class DisabledError(Exception):
    """A revision whose files nobody gets now, though it may be seen: quarantine."""


@dataclass(frozen=True)
class Proposal:
    """A revision that is about to be published; every blob of it is stored already."""

    repository: Repository
    ref: str  # refs/heads/main
    caller: Caller
    parent: Commit | None
    files: Sequence[NewFile]  # the whole new tree, by path
    changed: Sequence[NewFile]  # those of them that the parent has not, or has otherwise
    deleted: Sequence[str]  # paths that the parent has and this has not
    blob: Callable[[str], Path]  # the content of a SHA-256
    sources: Sequence[Commit] = ()  # other revisions that files are copied from, as merges do


@dataclass(frozen=True)
class FileSecurity:
    """What is known about the dangers of one file."""

    status: Literal["safe", "queued", "suspicious", "unsafe", "unscanned"]
    detail: str = ""


UNSCANNED: Final = FileSecurity("unscanned")


class Admission(Protocol):
    """Decides about content."""

    def admit(self, proposal: Proposal) -> None:
        """Raise AdmissionError unless it may be published; asked again if the branch moved."""

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        """Note the new revision, in the transaction that publishes it; may still refuse."""

    def check_fetch(self, caller: Caller, repository: Repository, commit: Commit) -> None:
        """Raise DisabledError unless files of this revision may be sent to this caller."""

    def withheld(self, caller: Caller, repositories: Sequence[Repository]) -> Collection[int]:
        """Return the keys of those that hold something which this caller would not be sent.

        Content is not reused from these: a commit of it elsewhere would hand it out.
        """

    def security(self, repository: Repository, commit: Commit) -> Mapping[str, FileSecurity]:
        """Return what is known, by path; what is left out is unscanned."""


class OpenAdmission:
    """Admits everything: no policy at all."""

    def admit(self, proposal: Proposal) -> None:
        """Admit."""

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        """Note nothing."""

    def check_fetch(self, caller: Caller, repository: Repository, commit: Commit) -> None:
        """Let through."""

    def withheld(self, caller: Caller, repositories: Sequence[Repository]) -> Collection[int]:  # noqa: ARG002 - as the protocol has it
        """Withhold nothing."""
        return ()

    def security(self, repository: Repository, commit: Commit) -> Mapping[str, FileSecurity]:  # noqa: ARG002 - as the protocol has it
        """Know nothing."""
        return {}
