"""Trust, as the protocol asks for it: tokens, Cedar decisions, the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from holdfast_hub_protocol.access import UnavailableError, Verb, Verdict
from holdfast_model_registry.readers import NOBODY, Access, read_access
from holdfast_trust.decisions import Resource
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import AccessEvent, Caller
    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository
    from holdfast_trust.decisions import Decisions
    from holdfast_trust.ledger import Ledger
    from holdfast_trust.principals import Principal
    from holdfast_trust.store import TrustStore


class TokenAuthenticator:
    """Asks the identity database."""

    def __init__(self, store: TrustStore) -> None:
        self.store = store

    def authenticate(self, token: str) -> Caller | None:
        """Return whom the token proves; UnavailableError if nobody can tell now."""
        try:
            return self.store.authenticate(token)
        except TrustError as error:
            raise UnavailableError(str(error)) from error

    def recall(self, token_id: str) -> Caller | None:
        """Return whom the token of this id proves now; UnavailableError if nobody can tell."""
        try:
            return self.store.recall(token_id)
        except TrustError as error:
            raise UnavailableError(str(error)) from error


class CedarAuthorizer:
    """Asks Cedar, with the reading teams and labels from the registry's table."""

    def __init__(self, decisions: Decisions, engine: sa.Engine) -> None:
        self.decisions = decisions
        self.engine = engine

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        """Decide on one model; an absent one is decided on like one without readers."""
        if verb not in {Verb.DISCOVER, Verb.READ}:
            return Verdict(allowed=False, reason=f"nothing permits {verb}")
        key = -1 if repository is None else repository.key
        access = read_access(self.engine, [key]).get(key, NOBODY)
        return self._decide(caller, str(name), access)

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        """Let nobody make a model."""
        return Verdict(allowed=False, reason=f"nothing permits {caller.name} to make {name}")

    def created(
        self, connection: sa.Connection, repository_key: int, name: RepositoryId, caller: Caller
    ) -> None:
        """Note nothing: without labels and readers it is read by nobody."""

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Return those of the models that the caller may read."""
        access = read_access(self.engine, [repository.key for repository in repositories])
        return [
            repository
            for repository in repositories
            if self._decide(caller, str(repository.id), access.get(repository.key, NOBODY)).allowed
        ]

    def bounds(self, caller: Caller) -> Sequence[str] | None:
        """Return the repositories that the caller's token names, if it names any."""
        scope = cast("Principal", caller).scope
        return None if scope is None else scope.repositories

    def _decide(self, caller: Caller, name: str, access: Access) -> Verdict:
        # Every caller was made by TokenAuthenticator, which makes Principals only.
        decision = self.decisions.decide(
            cast("Principal", caller),
            "model:read",
            Resource(kind="model", id=name, team_readers=access.teams, labels=access.labels),
        )
        return Verdict(decision.allowed, decision.policies, decision.reason)


class LedgerObserver:
    """Puts every answered request on the ledger before its first byte is sent."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def observe(self, event: AccessEvent) -> None:
        """Append and wait for the disk; UnavailableError, and no answer, if that fails."""
        record = {
            "action": "model.read",
            "actor": event.caller.name,
            "actor_kind": event.caller.kind,
            "token": event.caller.token_id,
            "operation": event.operation,
            "verb": event.verb,
            "method": event.method,
            "model": event.repository,
            "allowed": event.verdict.allowed,
            "policies": list(event.verdict.policies),
            "reason": event.verdict.reason,
            "status": event.status,
            "request": event.request_id,
            **event.details,
        }
        try:
            self.ledger.append(record)
        except TrustError as error:
            raise UnavailableError(str(error)) from error
