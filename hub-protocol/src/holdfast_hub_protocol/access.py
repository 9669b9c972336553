"""What the protocol asks of whoever holds the policy: who is it, may they, and take note."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository


class UnavailableError(Exception):
    """Whoever holds the policy cannot answer now: nobody is let in, clients try again (503)."""


class Caller(Protocol):
    """Whoever a token stands for."""

    @property
    def name(self) -> str:
        """The name shown by whoami."""

    @property
    def kind(self) -> str:
        """One of user, service, agent."""

    @property
    def teams(self) -> tuple[str, ...]:
        """The teams, which clients see as organisations."""

    @property
    def token_id(self) -> str:
        """What names the token without revealing it."""


class Authenticator(Protocol):
    """Turns a token into a caller."""

    def authenticate(self, token: str) -> Caller | None:
        """Return who the token stands for; None if it is unknown, expired or revoked."""


@dataclass(frozen=True)
class Verdict:
    """A decision and what it rests on."""

    allowed: bool
    policies: tuple[str, ...] = ()
    reason: str = ""


class Authorizer(Protocol):
    """Decides; the protocol shows what is denied as if it were not there."""

    def may_read(
        self, caller: Caller, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        """Decide on one repository.

        Asked for absent ones too (None, always denied), so that a denial takes as long as an
        absence.
        """

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Return those of the repositories that the caller may read, in the same order."""


@dataclass(frozen=True)
class AccessEvent:
    """One answered request of a known caller, told before its first byte is sent."""

    caller: Caller
    operation: str  # resolve, info, tree, paths-info, refs, commits, auth-check, list
    method: str
    repository: str  # namespace/name as asked for; '' for a listing
    verdict: Verdict
    status: int
    request_id: str
    details: Mapping[str, str | int] = field(default_factory=dict)  # revision, commit, path, …


class Observer(Protocol):
    """Keeps the record."""

    def observe(self, event: AccessEvent) -> None:
        """Note the event durably; if this raises, nothing is sent."""
