"""Provenance as a part of admission: looked at before a commit, kept with it in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import AdmissionError
from holdfast_model_registry.signing_provenance import ContradictionError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Authorizer, Caller
    from holdfast_hub_protocol.admission import Admission, FileSecurity, Proposal
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.signing_provenance import Provenance


_PULL_REQUESTS: Final = "refs/pr/"


class ProvenanceAdmission:
    """Another admission, and after it: signature, receipt, lineage, labels and manifest."""

    def __init__(
        self,
        inner: Admission,
        provenance: Provenance,
        authorizer: Authorizer,
        metadata: MetadataStore,
    ) -> None:
        self.inner = inner
        self.provenance = provenance
        self.authorizer = authorizer
        self.metadata = metadata

    def admit(self, proposal: Proposal) -> None:
        """Refuse what is signed for other files, or not signed where that is asked for."""
        self.inner.admit(proposal)
        examined = self.provenance.examine(proposal.files, proposal.blob)
        if why := self.provenance.refusal(proposal.repository.id.kind, examined):
            raise AdmissionError(why)

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        """Keep it all with the commit; refuse what `admit` would, and sources of other labels."""
        self.inner.published(connection, proposal, commit_oid)
        examined = self.provenance.examine(proposal.files, proposal.blob)
        # Histories written anew are published without having been admitted; so is a repository's
        # first commit, which has no parent and no model yet.
        kind = proposal.repository.id.kind
        if proposal.parent and (why := self.provenance.refusal(kind, examined)):
            raise AdmissionError(why)

        def visible(repository_key: int) -> bool:
            return any(
                self.authorizer.may(proposal.caller, Verb.DISCOVER, each.id, each).allowed
                for each in self.metadata.repositories_by_key([repository_key])
            )

        try:
            self.provenance.keep(
                connection,
                proposal.repository.key,
                commit_oid,
                examined,
                visible,
                counts=not proposal.ref.startswith(_PULL_REQUESTS),
            )
        except ContradictionError as error:
            raise AdmissionError(str(error)) from error

    def check_fetch(self, caller: Caller, repository: Repository, commit: Commit) -> None:
        """Ask the other one."""
        self.inner.check_fetch(caller, repository, commit)

    def withheld(self, caller: Caller, repositories: Sequence[Repository]) -> Collection[int]:
        """Ask the other one."""
        return self.inner.withheld(caller, repositories)

    def security(self, repository: Repository, commit: Commit) -> Mapping[str, FileSecurity]:
        """Ask the other one."""
        return self.inner.security(repository, commit)
