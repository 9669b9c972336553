"""Trust, as the protocol asks for it: tokens, Cedar decisions, people, the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from holdfast_hub_protocol.access import UnavailableError, Verb, Verdict
from holdfast_hub_protocol.access_requests import accepted, standing
from holdfast_hub_protocol.directory import TokenDescription
from holdfast_model_registry.readers import NOBODY, Access, put_access, read_access
from holdfast_trust.decisions import Resource
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import AccessEvent, Caller
    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository
    from holdfast_trust.decisions import Decision, Decisions
    from holdfast_trust.ledger import Ledger
    from holdfast_trust.principals import Principal
    from holdfast_trust.store import TrustStore

CLASSIFICATION: Final = "internal"  # of what is made here, until somebody says otherwise
# An absent repository is decided on like one that nobody was given: in the same steps.
_ABSENT: Final = Access(labels={"jurisdiction": "none", "classification": "none"})
_REMEMBERED: Final = 50_000  # decisions, some 400 bytes each


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


class TrustDirectory:
    """Knows people and teams from the identity database."""

    def __init__(self, store: TrustStore) -> None:
        self.store = store

    def members(self, team: str) -> Mapping[str, str] | None:
        """Return the users in a team with their roles; None if there is no such team."""
        try:
            return self.store.members_of(team)
        except TrustError as error:
            raise UnavailableError(str(error)) from error

    def teams(self, user: str) -> Mapping[str, str] | None:
        """Return the teams of a user with their roles; None if there is no such user."""
        try:
            return self.store.teams_of(user)
        except TrustError as error:
            raise UnavailableError(str(error)) from error

    def token(self, caller: Caller) -> TokenDescription:
        """Return what is known of the token that the caller came with."""
        try:
            name, created_at = self.store.token_named(caller.token_id)
        except TrustError as error:
            raise UnavailableError(str(error)) from error
        scope = _principal(caller).scope
        if scope is None:
            return TokenDescription(name, created_at)
        return TokenDescription(name, created_at, scope.verbs, scope.teams, scope.repositories)


class CedarAuthorizer:
    """Asks Cedar, with the reading teams and labels from the registry's table.

    `jurisdiction` labels what is made here; without one nothing can be made. Safe to share
    between threads.
    """

    def __init__(self, decisions: Decisions, engine: sa.Engine, jurisdiction: str = "") -> None:
        self.decisions = decisions
        self.engine = engine
        self.jurisdiction = jurisdiction
        self._remembered: dict[Hashable, dict[Hashable, bool]] = {}  # by caller
        self._count = 0

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        """Decide on one repository; for an absent one the same is done, and it is denied."""
        key = -1 if repository is None else repository.key
        access = read_access(self.engine, [key]).get(key, NOBODY if repository else _ABSENT)
        private = repository is None or repository.private
        gated = repository is not None and bool(repository.gated)
        resource = _resource(name, access, private=private, gated=gated)
        # Who is at the gate is asked only for those who may see it: asking takes time, too.
        first = Verb.DISCOVER if gated else verb
        decision = self.decisions.decide(_principal(caller), f"{name.kind}:{first}", resource)
        if repository is None:
            return Verdict(allowed=False, reason="there is no such repository")
        if gated and decision.allowed and verb is not Verb.DISCOVER:
            decision = self.decisions.decide(
                _principal(caller),
                f"{name.kind}:{verb}",
                resource,
                admitted=key in accepted(self.engine, caller.name, [key]),
            )
        message = "" if decision.allowed else self._message(caller, verb, repository, decision)
        return Verdict(decision.allowed, decision.policies, decision.reason, message)

    def may_approve(self, caller: Caller, repository: Repository) -> Verdict:
        """Decide whether the caller may say that a model's revision can be served."""
        access = read_access(self.engine, [repository.key]).get(repository.key, NOBODY)
        decision = self.decisions.decide(
            _principal(caller), "model:approve", _resource(repository.id, access)
        )
        return Verdict(
            decision.allowed,
            decision.policies,
            decision.reason,
            "" if decision.allowed else _by_token(decision) or "Reviewers and operators approve",
        )

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        """Decide on a repository that is to be made, with the labels that it would have."""
        decision = self.decisions.decide(
            _principal(caller), f"{name.kind}:create", _resource(name, self._new())
        )
        message = ""
        if not self.jurisdiction:
            message = "Nothing can be created here: the operator has set no jurisdiction"
        elif not decision.allowed:
            message = _by_token(decision) or (
                f"You may not create repositories in {name.namespace}: "
                "that takes the role write in a team of this name"
            )
        return Verdict(decision.allowed, decision.policies, decision.reason, message)

    def created(
        self, connection: sa.Connection, repository_key: int, name: RepositoryId, caller: Caller
    ) -> None:
        """Label a new repository; its own team reads it, and nobody else until it is opened."""
        del name, caller
        put_access(connection, repository_key, teams=None, labels=self._new().labels)

    def moved(
        self,
        connection: sa.Connection,
        repository: Repository,
        name: RepositoryId,
        caller: Caller,
    ) -> None:
        """Note nothing: labels and readers go with the repository, its owner is in its name."""

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Return those of the repositories that the caller may see listed.

        One decision for all that are alike, and none for what was decided before: a decision
        rests on the caller, their token's bounds, and what of the repository is in its key here;
        Decisions takes no policies for which that would not hold.
        """
        principal = _principal(caller)
        access = read_access(self.engine, [repository.key for repository in repositories])
        scope = principal.scope
        bounds = frozenset(scope.repositories or ()) if scope else frozenset[str]()
        own = {*principal.roles, *principal.teams}
        known = self._known(principal)
        found = []
        for repository in repositories:
            name, held = repository.id, access.get(repository.key, NOBODY)
            alike = (
                *(name.kind, repository.private, held.teams),
                *(held.labels.get("jurisdiction"), held.labels.get("classification")),
                name.namespace if name.namespace in own else "",
                _within(name, bounds),
            )
            allowed = known.get(alike)
            if allowed is None:
                resource = _resource(name, held, private=repository.private)
                action = f"{name.kind}:{Verb.DISCOVER}"
                allowed = self.decisions.decide(principal, action, resource).allowed
                known[alike] = allowed
                self._count += 1
            if allowed:
                found.append(repository)
        return found

    def bounds(self, caller: Caller) -> Sequence[str] | None:
        """Return the repositories that the caller's token names, if it names any."""
        scope = _principal(caller).scope
        return None if scope is None else scope.repositories

    @staticmethod
    def unread(caller: Caller, name: RepositoryId) -> str:
        """Return why a caller's token does not reach as far as reading a repository, or ''."""
        scope = _principal(caller).scope
        if scope is None:
            return ""
        if "read" not in scope.included:
            return "its token does not carry the right to read"
        if scope.repositories is not None and not _within(name, frozenset(scope.repositories)):
            return "its token is bound to other repositories"
        return ""

    def _new(self) -> Access:
        return Access((), {"jurisdiction": self.jurisdiction, "classification": CLASSIFICATION})

    def _known(self, principal: Principal) -> dict[Hashable, bool]:
        """Return what was decided for just such a caller: other rights are another caller."""
        who = (
            *(principal.kind, principal.name, principal.teams, principal.scope),
            frozenset(principal.roles.items()),
        )
        if self._count >= _REMEMBERED:
            self._remembered, self._count = {}, 0
        return self._remembered.setdefault(who, {})

    def _message(
        self, caller: Caller, verb: Verb, repository: Repository, decision: Decision
    ) -> str:
        """Return what a caller is told who may know that the repository is there."""
        if by_token := _by_token(decision):
            return by_token
        name = repository.id
        if "repository.gated" in decision.policies:
            asked = standing(self.engine, caller.name, repository.key)
            if asked is None:
                return (
                    f"Access to {name.kind} {name} is restricted and you are not in the "
                    f"authorized list. Ask for access: POST {_address(name)}/ask-access"
                )
            if asked.status == "pending":
                return f"Your request to access {name.kind} {name} is awaiting a review"
            why = f": {asked.reason}" if asked.reason else ""
            return f"Your request to access {name.kind} {name} has been rejected{why}"
        role = caller.roles.get(name.namespace)
        yours = f"your role there is {role}" if role else "you are not in it"
        return f"You may not {verb} in {name}: that takes a role in {name.namespace}, and {yours}"


class LedgerObserver:
    """Puts every answered request on the ledger before its first byte is sent."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def observe(self, event: AccessEvent) -> None:
        """Append and wait for the disk; UnavailableError, and no answer, if that fails."""
        kind = event.kind or "model"
        reads = event.verb in {Verb.DISCOVER, Verb.READ}
        record = {
            "action": f"{kind}.read" if reads else f"{kind}.write",
            "actor": event.caller.name,
            "actor_kind": event.caller.kind,
            "token": event.caller.token_id,
            "operation": event.operation,
            "verb": event.verb,
            "method": event.method,
            kind: event.repository,
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


def _principal(caller: Caller) -> Principal:
    # Every caller was made by TokenAuthenticator, which makes Principals only.
    return cast("Principal", caller)


def _resource(
    name: RepositoryId, access: Access, *, private: bool = True, gated: bool = False
) -> Resource:
    return Resource(
        kind="dataset" if name.kind == "dataset" else "model",
        id=str(name),
        team_readers=access.teams,
        labels=access.labels,
        private=private,
        gated=gated,
    )


def _within(name: RepositoryId, bounds: frozenset[str]) -> str:
    """Return the bound of a token that a repository is within, '' for none."""
    folded = str(name).lower()
    if folded in bounds:
        return folded
    whole = f"{name.namespace.lower()}/*"
    return whole if whole in bounds else ""


def _by_token(decision: Decision) -> str:
    """Return what to say where the token, not its owner, lacks the right."""
    if "token.other-repository" in decision.policies:
        return "Your token is bound to other repositories"
    if any(policy.startswith("token.") for policy in decision.policies):
        return "Your token does not carry this right: issue one that does"
    return ""


def _address(name: RepositoryId) -> str:
    return f"/{name}" if name.kind == "model" else f"/{name.kind}s/{name}"
