"""What the protocol asks of whoever knows people and teams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_hub_protocol.access import Caller


@dataclass(frozen=True)
class TokenDescription:
    """What whoami tells of the caller's own token; None is no bound."""

    name: str
    created_at: int  # Unix seconds
    verbs: Sequence[str] | None = None
    teams: Sequence[str] | None = None
    repositories: Sequence[str] | None = None


class Directory(Protocol):
    """Knows people and teams; what of it a caller is told is decided here."""

    def members(self, team: str) -> Mapping[str, str] | None:
        """Return the users in a team with their roles; None if there is no such team."""

    def teams(self, user: str) -> Mapping[str, str] | None:
        """Return the teams of a user with their roles; None if there is no such user."""

    def token(self, caller: Caller) -> TokenDescription:
        """Return what is known of the token that the caller came with."""


class NobodyKnown:
    """The directory of a hub that was given none."""

    def members(self, team: str) -> Mapping[str, str] | None:  # noqa: ARG002 - a Directory
        """Know no team."""
        return None

    def teams(self, user: str) -> Mapping[str, str] | None:  # noqa: ARG002 - a Directory
        """Know no user."""
        return None

    def token(self, caller: Caller) -> TokenDescription:
        """Know the token's id."""
        return TokenDescription(caller.token_id, 0)
