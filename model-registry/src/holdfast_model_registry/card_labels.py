"""A card that says `classification:` labels its repository, if that is stricter than its label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.admission import AdmissionError
from holdfast_hub_protocol.metadata import MAIN
from holdfast_model_registry.lineage_labels import at_most, known_classification
from holdfast_model_registry.opening import open_to
from holdfast_model_registry.readers import NOBODY, given_access

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.admission import Admission, FileSecurity, Proposal
    from holdfast_hub_protocol.records import Commit, Repository


class CardLabels:
    """The label that the card of the main branch asks for, and then another admission.

    Less strict than the label it has is no error and changes nothing: only operators take a label
    back. What an operator imports is labelled by the operator.
    """

    def __init__(self, inner: Admission) -> None:
        self.inner = inner

    def admit(self, proposal: Proposal) -> None:
        """Ask the other one."""
        self.inner.admit(proposal)

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        """Label the repository in the transaction that publishes the card."""
        if proposal.ref == MAIN:
            label_by_card(connection, proposal.repository.key, commit_oid)
        self.inner.published(connection, proposal, commit_oid)

    def check_fetch(self, caller: Caller, repository: Repository, commit: Commit) -> None:
        """Ask the other one."""
        self.inner.check_fetch(caller, repository, commit)

    def withheld(self, caller: Caller, repositories: Sequence[Repository]) -> Collection[int]:
        """Ask the other one."""
        return self.inner.withheld(caller, repositories)

    def security(self, repository: Repository, commit: Commit) -> Mapping[str, FileSecurity]:
        """Ask the other one."""
        return self.inner.security(repository, commit)


def label_by_card(connection: sa.Connection, repository_key: int, commit_oid: str) -> None:
    """Label a repository by the card of one of its commits; AdmissionError for an odd word."""
    facts = connection.execute(
        sa.select(schema.snapshots.c.facts)
        .join(schema.commits, schema.commits.c.snapshot_id == schema.snapshots.c.id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == commit_oid)
    ).scalar_one()
    asked = (facts.get("cardData") or {}).get("classification")
    if asked is None:
        return
    if not isinstance(asked, str) or not known_classification(asked):
        raise AdmissionError(
            f"The card's classification {str(asked)[:50]!r} is none that this site's profiles know"
        )
    held = (given_access(connection, repository_key) or NOBODY).labels.get("classification", "")
    if held != asked and at_most(held, asked):
        open_to(connection, repository_key, teams=None, labels={"classification": asked})
