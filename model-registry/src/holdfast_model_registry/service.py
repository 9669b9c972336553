"""The registry as an ASGI application: the protocol bound to storage and trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast_hub_protocol.application import create_application
from holdfast_hub_protocol.endpoints import Hub
from holdfast_hub_protocol.quotas import NO_QUOTAS, Quotas
from holdfast_hub_protocol.sending import DirectSender, NginxSender
from holdfast_hub_protocol.signing import Signer, read_or_make_secret
from holdfast_hub_protocol.xet import READS_OVER
from holdfast_model_registry import (
    commit_manifest_routes,
    opening,
    replication_routes,
    verification_routes,
)
from holdfast_model_registry.admission.admission import PolicyAdmission
from holdfast_model_registry.admission.observing import Observer
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.card_labels import CardLabels
from holdfast_model_registry.late_signing import LateSigner, sign_some
from holdfast_model_registry.policy import (
    LedgerObserver,
    TokenAuthenticator,
    TrustDirectory,
)
from holdfast_model_registry.replication_access import ReplicaAuthorizer
from holdfast_model_registry.review.reviewing import Reviewing
from holdfast_model_registry.review.rights import Rights
from holdfast_model_registry.review.routes import ReviewRoutes
from holdfast_model_registry.scanning.scanner import Scanner
from holdfast_model_registry.seed import plant
from holdfast_model_registry.signing_admission import ProvenanceAdmission
from holdfast_model_registry.signing_key import trusted_keys
from holdfast_model_registry.signing_provenance import Provenance
from holdfast_model_registry.storage import Locations, one_writer, open_storage
from holdfast_model_registry.verification import Verifier
from holdfast_trust.decisions import Decisions
from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from starlette.types import ASGIApp

    from holdfast_hub_protocol.downloads import DownloadCounter
    from holdfast_model_registry.admission.policy import ModelPolicy
    from holdfast_model_registry.importing import Imported
    from holdfast_model_registry.replication_access import Replica
    from holdfast_model_registry.signing_key import Signer as TrustedSigner

Accelerator = Literal["", "nginx"]


@dataclass(frozen=True)
class Service:
    """An open registry; close it to give back its databases and sign the ledger."""

    application: ASGIApp
    ledger: Ledger
    store: TrustStore
    scanner: Scanner
    downloads: DownloadCounter
    late_signer: LateSigner

    def close(self) -> None:
        """Close the ledger with a checkpoint, and the databases."""
        self.scanner.stop()
        self.late_signer.stop()
        self.downloads.close()
        self.scanner.reviewing.storage.close()
        self.ledger.close()
        self.store.close()


def open_service(  # noqa: PLR0913 - a registry is all of this
    locations: Locations,
    accelerate: Accelerator = "",
    quotas: Quotas = NO_QUOTAS,
    signers: Sequence[TrustedSigner] = (),
    *,
    jurisdiction: str = "",
    kinds: Sequence[str] = ("model",),
    policy: ModelPolicy | None = None,
    xet_reads_over: int = READS_OVER,
    replicas: Sequence[Replica] = (),
) -> Service:
    """Open the registry in this process; after a fork, not before."""
    storage = open_storage(locations)
    ledger = Ledger(locations.ledger_folder)
    store = TrustStore(locations.trust_url)
    authorizer = ReplicaAuthorizer(Decisions(), storage.metadata.engine, jurisdiction, replicas)
    policy = policy or read_policy(None)
    provenance = Provenance(storage.key, trusted_keys(signers), policy.model_signature)
    verifier = Verifier(
        storage.metadata, storage.blobs, (storage.key.trusted,), policy.model_signature
    )
    reviewing = Reviewing(storage, policy, ledger, Observer())
    scanner = Scanner(reviewing, locations.data)
    rights = Rights(authorizer, authorizer, storage.metadata.engine)
    admission = PolicyAdmission(reviewing, rights, scanner.soon)
    hub = Hub(
        metadata=storage.metadata,
        blobs=storage.blobs,
        sender=NginxSender(storage.blobs) if accelerate == "nginx" else DirectSender(storage.blobs),
        authenticator=TokenAuthenticator(store),
        authorizer=authorizer,
        observer=LedgerObserver(ledger),
        admission=CardLabels(
            ProvenanceAdmission(admission, provenance, authorizer, storage.metadata)
        ),
        directory=TrustDirectory(store),
        kinds=kinds,
        quotas=quotas,
        xet_reads_over=xet_reads_over,
        signer=Signer(read_or_make_secret(locations.signing_key)),
    )
    own = (
        commit_manifest_routes.routes,
        opening.routes,
        verification_routes.routes(verifier),
        replication_routes.routes(storage.key),
        ReviewRoutes(reviewing, rights),
    )
    scanner.start()
    hub.downloads.start()
    late_signer = LateSigner(storage, locations.data)
    late_signer.start()
    application = create_application(hub, own)
    return Service(application, ledger, store, scanner, hub.downloads, late_signer)


def prepare(
    locations: Locations,
    seed: Path | None,
    policy: ModelPolicy | None = None,
    signers: Sequence[TrustedSigner] = (),
) -> list[Imported]:
    """Make what a registry needs before it serves: folders, tables, the seed; check policies.

    Leaves nothing open, so that workers may be forked afterwards.
    """
    Decisions()
    policy = policy or read_policy(None)
    storage = open_storage(locations)
    try:
        with one_writer(locations), Ledger(locations.ledger_folder) as ledger:
            sign_some(storage)
            if locations.trust_database and seed is None:
                return []  # somebody else's database: nothing here to create
            store = TrustStore(locations.trust_url, ledger=ledger, actor="seed")
            try:
                store.create_schema()
                provenance = Provenance(storage.key, trusted_keys(signers), policy.model_signature)
                return plant(seed, store, storage, ledger, policy, provenance) if seed else []
            finally:
                store.close()
    finally:
        storage.close()
