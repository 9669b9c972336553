"""Who may write a repository, read it, and say what may be served; Cedar decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from holdfast_model_registry.lineage_labels import labels_of
from holdfast_model_registry.readers import NOBODY, read_access
from holdfast_trust.decisions import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Authorizer, Caller, Verb
    from holdfast_hub_protocol.records import Repository
    from holdfast_trust.decisions import Decisions
    from holdfast_trust.principals import Principal

SERVING: Final = "serving"  # the team of the serving hosts, as policies name it


class Rights:
    """Asks the hub's authorizer about the protocol's verbs, and Cedar about approving."""

    def __init__(self, authorizer: Authorizer, decisions: Decisions, engine: sa.Engine) -> None:
        self.authorizer = authorizer
        self.decisions = decisions
        self.engine = engine

    def may(self, caller: Caller, verb: Verb, repository: Repository) -> bool:
        """Decide on a verb of the protocol."""
        return self.authorizer.may(caller, verb, repository.id, repository).allowed

    def may_approve(self, caller: Caller, repository: Repository) -> bool:
        """Decide whether the caller's word counts for what is served."""
        access = read_access(self.engine, [repository.key]).get(repository.key, NOBODY)
        resource = Resource(
            kind="model",
            id=str(repository.id),
            team_readers=access.teams,
            labels=self.labels(repository.key),
            private=repository.private,
            gated=bool(repository.gated),
        )
        # Every caller was made by TokenAuthenticator, which makes Principals only.
        principal = cast("Principal", caller)
        return self.decisions.decide(principal, "model:approve", resource).allowed

    def labels(self, repository: int) -> Mapping[str, str]:
        """Return the labels that hold for a repository, its own and what it inherits."""
        with self.engine.connect() as connection:
            return labels_of(connection, [repository]).get(repository, {})


def serves(caller: Caller) -> bool:
    """Tell whether a caller is a serving host: it gets what is approved, and nothing else."""
    return caller.kind == "service" and SERVING in caller.teams
