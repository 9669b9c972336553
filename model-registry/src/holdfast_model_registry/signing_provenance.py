"""Where a revision comes from, looked at when it comes in and kept with it.

Whoever admits revisions (commits and imports) asks `examine` and `refusal` before, and calls `keep`
in the transaction that publishes: signature verdict, lineage with inherited labels, and the signed
manifest of the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_model_registry import commit_manifest, lineage
from holdfast_model_registry.lineage_receipt import RECEIPT_FILE, Receipt, check_receipt
from holdfast_model_registry.signing import (
    SIGNATURE_FILE,
    ModelSignature,
    SignatureState,
    check_signature,
)
from holdfast_model_registry.signing_envelope import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast_hub_protocol.records import NewFile
    from holdfast_model_registry.signing_envelope import TrustedKey
    from holdfast_model_registry.signing_key import RegistryKey

SignatureRule = Literal["required", "if-present"]

signatures: Final = sa.Table(
    "model_signatures",
    schema.metadata,
    sa.Column(
        "commit_id", sa.ForeignKey(schema.commits.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("signer", sa.Text, nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("receipt", sa.String(16), nullable=False),  # absent, verified, untrusted, malformed
    sa.Column("receipt_detail", sa.Text, nullable=False),
)


class ContradictionError(Exception):
    """Labels that no one revision can carry; nothing was written."""


@dataclass(frozen=True)
class Examined:
    """What the files of a revision say about where they come from."""

    signature: ModelSignature
    receipt: Receipt | None


@dataclass(frozen=True)
class Provenance:
    """The registry's own key, whose signatures it believes, and whether models need one."""

    key: RegistryKey
    signers: tuple[TrustedKey, ...] = ()
    rule: SignatureRule = "if-present"

    def examine(self, files: Sequence[NewFile], blob: Callable[[str], Path]) -> Examined:
        """Judge signature and receipt of a revision whose blobs are stored."""
        digests = {file.path: file.sha256 for file in files}
        sizes = {file.path: file.size for file in files}

        def content(path: str) -> bytes | None:
            if path not in digests:
                return None
            # One byte past the bound: the judges refuse it by its length.
            with blob(digests[path]).open("rb") as file:
                return file.read(min(sizes[path], MAX_SIZE + 1))

        receipt = content(RECEIPT_FILE)
        return Examined(
            check_signature(content(SIGNATURE_FILE), digests, self.signers),
            None if receipt is None else check_receipt(receipt, digests, self.signers),
        )

    def refusal(self, kind: str, examined: Examined) -> str:
        """Return why a revision is not let in, as its committer reads it; '' if it is."""
        signature, receipt = examined.signature, examined.receipt
        if signature.broken:
            return f"The model signature does not hold: {signature.detail}"
        if receipt is not None and receipt.state == "malformed":
            return f"The training receipt does not hold: {receipt.detail}"
        if (
            kind == "model"
            and self.rule == "required"
            and signature.state is not SignatureState.VERIFIED
        ):
            return (
                f"A model needs a signature by a signer of this site ({SIGNATURE_FILE}): "
                f"{signature.detail}"
            )
        return ""

    def keep(  # noqa: PLR0913 - a commit with all that is known of it
        self,
        connection: sa.Connection,
        repository_key: int,
        oid: str,
        examined: Examined,
        visible: Callable[[int], bool] = lambda _: True,
        *,
        counts: bool = True,
    ) -> None:
        """Record all of it for a commit that this transaction publishes, once.

        `visible` tells which repositories (by key) the committer may know of; without `counts` it
        is only proposed, and labels nothing. ContradictionError if what it was made from may not
        be where it is.
        """
        row = connection.execute(
            sa.select(schema.commits.c.id, schema.snapshots.c.facts)
            .join(schema.snapshots, schema.snapshots.c.id == schema.commits.c.snapshot_id)
            .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid)
        ).one()
        known = connection.execute(
            sa.select(signatures.c.commit_id).where(signatures.c.commit_id == row.id)
        ).scalar_one_or_none()
        if known is None:
            _insert(connection, row.id, examined)
        receipt = examined.receipt
        verified = receipt is not None and receipt.state == "verified"
        sources = lineage.sources_of(
            row.facts.get("cardData"),
            receipt.training if receipt is not None and verified else None,
            receipt.signer if receipt is not None else "",
        )
        if why := lineage.record(connection, repository_key, oid, sources, visible, counts=counts):
            raise ContradictionError(why)
        commit_manifest.record(connection, repository_key, oid, self.key)


def read_verdict(
    connection: sa.Connection, repository_key: int, oid: str
) -> tuple[ModelSignature, str, str] | None:
    """Return the kept verdict on a commit's signature, and its receipt's state and detail."""
    row = connection.execute(
        sa.select(signatures)
        .join(schema.commits, schema.commits.c.id == signatures.c.commit_id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid)
    ).one_or_none()
    if row is None:
        return None
    signature = ModelSignature(SignatureState(row.state), row.detail, row.signer, row.key)
    return signature, row.receipt, row.receipt_detail


def _insert(connection: sa.Connection, commit_key: int, examined: Examined) -> None:
    signature, receipt = examined.signature, examined.receipt
    connection.execute(
        signatures.insert().values(
            commit_id=commit_key,
            state=signature.state.value,
            signer=signature.signer,
            key=signature.key,
            detail=signature.detail,
            receipt="absent" if receipt is None else receipt.state,
            receipt_detail="" if receipt is None else receipt.detail,
        )
    )
