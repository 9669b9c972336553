"""Other registries that copy from this one: what they may see is what labels let go where they are.

A replica is a service named in the settings with the jurisdiction it stands in. Team and role mean
nothing for it: a repository whose labels may not go there does not exist for its token, nor one
that its token is not for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from holdfast_hub_protocol.access import Verb, Verdict
from holdfast_model_registry.lineage_labels import may_be_in
from holdfast_model_registry.policy import CedarAuthorizer
from holdfast_model_registry.readers import NOBODY, read_access

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import Repository
    from holdfast_trust.decisions import Decisions

POLICY = "replication.labels"  # as the ledger names the ground of a decision


class Replica(BaseModel):
    """A registry that may copy what its place permits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: Annotated[str, Field(min_length=1)]  # the principal whose token it comes with
    jurisdiction: Annotated[str, Field(min_length=1)]  # where it stands
    classification: Annotated[str, Field(min_length=1)] = "internal"  # the highest that may go


class ReplicaAuthorizer(CedarAuthorizer):
    """Decides by labels for replicas, and for everybody else as before."""

    def __init__(
        self,
        decisions: Decisions,
        engine: sa.Engine,
        jurisdiction: str = "",
        replicas: Iterable[Replica] = (),
    ) -> None:
        super().__init__(decisions, engine, jurisdiction)
        self._replicas: Mapping[str, Replica] = {each.service: each for each in replicas}

    def replica(self, caller: Caller) -> Replica | None:
        """Return the replica that a caller is, None if they are none."""
        return self._replicas.get(caller.name) if caller.kind == "service" else None

    def may(
        self, caller: Caller, verb: Verb, name: RepositoryId, repository: Repository | None
    ) -> Verdict:
        """Let a replica see and read what may go where it stands, and do nothing else."""
        replica = self.replica(caller)
        if replica is None:
            return super().may(caller, verb, name, repository)
        access = read_access(self.engine, [-1 if repository is None else repository.key])
        held = NOBODY if repository is None else access.get(repository.key, NOBODY)
        why = may_be_in(held.labels, replica.jurisdiction, replica.classification)
        why = why or self.unread(caller, name)
        if repository is None or why:
            return Verdict(allowed=False, policies=(POLICY,), reason=why or "it is not here")
        if verb not in {Verb.DISCOVER, Verb.READ}:
            return Verdict(allowed=False, policies=(POLICY,), reason="replicas only read")
        reason = f"its labels permit {replica.jurisdiction}"
        return Verdict(allowed=True, policies=(POLICY,), reason=reason)

    def may_create(self, caller: Caller, name: RepositoryId) -> Verdict:
        """Let a replica make nothing."""
        if self.replica(caller) is not None:
            return Verdict(allowed=False, policies=(POLICY,), reason="replicas only read")
        return super().may_create(caller, name)

    def readable(self, caller: Caller, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Return what the caller may see listed."""
        replica = self.replica(caller)
        if replica is None:
            return super().readable(caller, repositories)
        access = read_access(self.engine, [each.key for each in repositories])
        return [
            each
            for each in repositories
            if not may_be_in(
                access.get(each.key, NOBODY).labels, replica.jurisdiction, replica.classification
            )
            and not self.unread(caller, each.id)
        ]
