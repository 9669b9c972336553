"""Who may write a repository, and who says what may be served; the authorizer decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from holdfast_model_registry.lineage_labels import labels_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Authorizer, Caller, Verb, Verdict
    from holdfast_hub_protocol.records import Repository

SERVING: Final = "serving"  # the team of the serving hosts, as policies name it


class Approvers(Protocol):
    """Decides whose word counts."""

    def may_approve(self, caller: Caller, repository: Repository) -> Verdict:
        """Decide whether the caller may say that a model's revision can be served."""


class Rights:
    """What reviews ask of those who decide."""

    def __init__(self, authorizer: Authorizer, approvers: Approvers, engine: sa.Engine) -> None:
        self.authorizer = authorizer
        self.approvers = approvers
        self.engine = engine

    def may(self, caller: Caller, verb: Verb, repository: Repository) -> bool:
        """Decide on a verb of the protocol."""
        return self.authorizer.may(caller, verb, repository.id, repository).allowed

    def may_approve(self, caller: Caller, repository: Repository) -> bool:
        """Decide whether the caller's word counts for what is served."""
        return self.approvers.may_approve(caller, repository).allowed

    def labels(self, repository: int) -> Mapping[str, str]:
        """Return the labels that hold for a repository, its own and what it inherits."""
        with self.engine.connect() as connection:
            return labels_of(connection, [repository]).get(repository, {})


def serves(caller: Caller) -> bool:
    """Tell whether a caller is a serving host: it gets what is approved, and nothing else."""
    return caller.kind == "service" and SERVING in caller.teams
