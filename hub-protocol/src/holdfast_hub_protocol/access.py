"""What the protocol asks of whoever holds the policy: who is it, may they, and take note."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository


class UnavailableError(Exception):
    """Whoever holds the policy cannot answer now: nobody is let in, clients try again (503)."""


class Verb(StrEnum):
    """What a caller wants of a repository; each includes those before it."""

    DISCOVER = "discover"  # know that it is there: its card, its list of files, its history
    READ = "read"  # and the content of its files
    CONTRIBUTE = "contribute"  # and open pull requests, discuss
    WRITE = "write"  # and commit, make branches and tags, merge
    ADMIN = "admin"  # and settings, move, delete, access requests


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
    def roles(self) -> Mapping[str, str]:
        """The role in each team: read, contribute, write or admin."""

    @property
    def email(self) -> str:
        """What stands beside the name in commits; `name@users.invalid` where none is known."""

    @property
    def token_id(self) -> str:
        """What names the token without revealing it."""


class Authenticator(Protocol):
    """Turns a token into a caller."""

    def authenticate(self, token: str) -> Caller | None:
        """Return who the token stands for; None if it is unknown, expired or revoked."""

    def recall(self, token_id: str) -> Caller | None:
        """Return who the token of this id stands for now; None if it is expired or revoked.

        For what was signed for its holder: addresses and tokens that end with it.
        """


@dataclass(frozen=True)
class Verdict:
    """A decision and what it rests on."""

    allowed: bool
    policies: tuple[str, ...] = ()
    reason: str = ""  # for the record
    message: str = ""  # for the caller, where a denial may be told


class Authorizer(Protocol):
    """Decides; the protocol shows what is denied as if it were not there."""

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        """Decide on one repository.

        Asked for absent ones too (None, always denied), so that a denial takes as long as an
        absence. What may not be discovered is answered as absent; what may be discovered and not
        read as gated (403 GatedRepo, with the verdict's message); any other denial as 403.
        """

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        """Decide on a repository that is to be made, or to move to this name."""

    def created(
        self, connection: sa.Connection, repository_key: int, name: RepositoryId, caller: Caller
    ) -> None:
        """Note, in the transaction that makes it, what later decisions on a repository need."""

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Return those of the repositories that the caller may see listed, in the same order."""

    def bounds(self, caller: Caller) -> Sequence[str] | None:
        """Return what the caller's token is bound to: `namespace/name` in lower case, or `…/*`.

        None for a token that is bound to no repositories in particular. Within its bounds all
        repositories of one namespace, visibility and access class are `readable` alike.
        """


@dataclass(frozen=True)
class AccessEvent:
    """One answered request of a known caller, told before its first byte is sent.

    What changes something is told twice: with status 0 before anybody can see it, then answered.
    """

    caller: Caller
    operation: str  # resolve, info, tree, paths-info, refs, commits, auth-check, list, commit, …
    verb: Verb
    method: str
    repository: str  # namespace/name as asked for; '' for a listing
    verdict: Verdict
    status: int
    request_id: str
    details: Mapping[str, str | int] = field(default_factory=dict)  # revision, commit, path, …
    kind: str = ""  # of the repository: model, dataset


class Observer(Protocol):
    """Keeps the record."""

    def observe(self, event: AccessEvent) -> None:
        """Note the event durably; if this raises, nothing is sent."""
