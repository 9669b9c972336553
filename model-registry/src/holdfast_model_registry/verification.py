"""The whole chain of one revision, from upload to digest, asked of this registry alone, offline.

Each link is a value {name, verdict, detail, fix} with the verdicts of Holdfast's audits. Content is
measured, not believed: every blob is read; the rows of the database are held against the manifest
that was signed when the commit was published.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.blobs import CHUNK_SIZE
from holdfast_model_registry import commit_manifest, lineage
from holdfast_model_registry.lineage_labels import LABELS, labels_of
from holdfast_model_registry.replication_documents import replicated
from holdfast_model_registry.review import states, store
from holdfast_model_registry.signing import ModelSignature, SignatureState
from holdfast_model_registry.signing_envelope import EnvelopeError
from holdfast_model_registry.signing_provenance import read_verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast_hub_protocol.blobs import BlobStore
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository
    from holdfast_model_registry.lineage import Ancestor
    from holdfast_model_registry.review.states import Approval
    from holdfast_model_registry.review.store import Review
    from holdfast_model_registry.signing_envelope import TrustedKey
    from holdfast_model_registry.signing_provenance import SignatureRule

# Verdicts that ask for nobody's attention.
SATISFIED: Final = frozenset({"pass", "not-applicable", "attested"})
_SOME: Final = 5


@dataclass(frozen=True)
class Link:
    """One link of the chain, with its verdict."""

    name: str
    verdict: str  # pass, fail, inconclusive, attested, not-applicable, not-run
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Chain:
    """Everything that is known of one revision, and the verdict on each link."""

    kind: str
    model: str
    commit: str
    refs: tuple[str, ...]
    title: str
    author: str
    date: str
    labels: Mapping[str, str]
    signature: Mapping[str, str]
    lineage: tuple[Mapping[str, Any], ...]
    review: Mapping[str, Any]
    links: tuple[Link, ...] = field(repr=False)

    @property
    def findings(self) -> tuple[Link, ...]:
        """The links that need somebody's attention."""
        return tuple(link for link in self.links if link.verdict not in SATISFIED)

    def as_json(self) -> dict[str, Any]:
        """Return it as `model verify --json` prints it."""
        return asdict(self)


@dataclass(frozen=True)
class Verifier:
    """The stores of a registry, the keys it is verified with, and the rule on signatures."""

    metadata: MetadataStore
    blobs: BlobStore
    registries: Sequence[TrustedKey]
    rule: SignatureRule = "if-present"

    def verify(
        self,
        repository: Repository,
        commit: Commit,
        *,
        measure: bool = True,
        step: Callable[[int], None] = lambda _: None,
        visible: Callable[[int], bool] = lambda _: True,
    ) -> Chain:
        """Return the chain of one commit; `step` is told of bytes read. Without `measure` none are.

        `visible` tells which sources (by repository key) whoever asks may know of. Nothing raises
        for what is wrong with the revision: that is what the links say.
        """
        key, oid = repository.key, commit.oid
        entries = self.metadata.files(commit)
        with self.metadata.engine.connect() as connection:
            labels = labels_of(connection, [key]).get(key, {})
            contradiction = lineage.contradiction(connection, key)
            ancestors = [
                each if each.key is None or visible(each.key) else each.hidden
                for each in lineage.read(connection, key, oid)
            ]
            verdict = read_verdict(connection, key, oid)
            review = store.find(connection, key, oid)
            approvals = store.given(connection, key, oid) if review else []
            manifest = self._manifest(connection, key, oid)
            origin = _origin(connection, key, oid)
        signature = verdict[0] if verdict else None
        is_model = repository.id.kind == "model"
        links = (
            Link("upload", "attested", _uploaded(commit, review)),
            *origin,
            manifest,
            self._digests(entries, step) if measure else _NOT_MEASURED,
            self._signature(signature, required=is_model and self.rule == "required"),
            _receipt(verdict),
            *((_scan(review), _approval(review, approvals, entries)) if is_model else ()),
            _lineage(ancestors),
            _labels(labels, contradiction),
        )
        return Chain(
            kind=repository.id.kind,
            model=str(repository.id),
            commit=oid,
            refs=tuple(ref.name for ref in self.metadata.refs(repository) if ref.commit == oid),
            title=commit.title,
            author=commit.author,
            date=commit.date.isoformat(),
            labels=labels,
            signature=signature.as_json() if signature else {},
            lineage=tuple(ancestor.as_json() for ancestor in ancestors),
            review={}
            if review is None
            else {
                "state": review.state.value,
                "uploader": review.uploader,
                "digest": review.digest,
                "approvals": [asdict(approval) for approval in approvals],
                "findings": [each.as_json() for each in review.findings],
            },
            links=links,
        )

    def _manifest(self, connection: sa.Connection, key: int, oid: str) -> Link:
        text = commit_manifest.read_envelope_text(connection, key, oid)
        if text is None:
            return Link("manifest", "fail", "no signed manifest", "restart the registry: it signs")
        try:
            signed = commit_manifest.verify(text, self.registries)
        except EnvelopeError as error:
            return Link("manifest", "fail", str(error), _RESTORE)
        row = connection.execute(
            sa.select(schema.commits.c.id).where(
                schema.commits.c.repository_id == key, schema.commits.c.oid == oid
            )
        ).scalar_one()
        # A repository that was moved has another name than when its commits were signed.
        moved = {"repository", "signed"}
        was = signed.manifest.model_dump(exclude=moved)
        now = commit_manifest.read_rows(connection, row).model_dump(exclude=moved)
        if changed := [name for name, value in was.items() if now[name] != value]:
            detail = f"the database differs from what was signed: {', '.join(changed)}"
            return Link("manifest", "fail", detail, _RESTORE)
        at = signed.manifest.signed.isoformat()
        files = len(signed.manifest.files)
        return Link("manifest", "pass", f"{files} files, signed by {signed.key.name} at {at}")

    def _digests(self, entries: Sequence[Entry], step: Callable[[int], None]) -> Link:
        damaged: list[str] = []
        seen: dict[str, bool] = {}
        for entry in entries:
            sha256 = entry.sha256 or ""
            if sha256 not in seen:
                seen[sha256] = self._measures(sha256, entry.size, step)
            if not seen[sha256]:
                damaged.append(entry.path)
        if damaged:
            more = f" and {len(damaged) - _SOME} more" if len(damaged) > _SOME else ""
            return Link(
                "digests",
                "fail",
                f"missing or altered: {', '.join(damaged[:_SOME])}{more}",
                "import or push the revision again, or restore the blobs from the backup",
            )
        size = sum(entry.size for entry in entries)
        return Link("digests", "pass", f"{len(entries)} files, {size} bytes, read and as signed")

    def _measures(self, sha256: str, size: int, step: Callable[[int], None]) -> bool:
        digest, read = hashlib.sha256(), 0
        try:
            with self.blobs.open(sha256) as file:
                while chunk := file.read(CHUNK_SIZE):
                    digest.update(chunk)
                    read += len(chunk)
                    step(len(chunk))
        except OSError:
            return False
        return (digest.hexdigest(), read) == (sha256, size)

    def _signature(self, signature: ModelSignature | None, *, required: bool) -> Link:
        if signature is None:
            return Link("signature", "not-run", "never looked at", "import the revision again")
        match signature.state:
            case SignatureState.VERIFIED:
                return Link("signature", "pass", signature.detail)
            case SignatureState.ABSENT if not required:
                return Link("signature", "not-applicable", f"{signature.detail}; none is needed")
            case SignatureState.UNTRUSTED if not required:
                fix = "add the signer's key to signers of site.yml, if they are to be believed"
                return Link("signature", "inconclusive", signature.detail, fix)
        return Link("signature", "fail", signature.detail, "holdfast-model-registry model sign")


_RESTORE: Final = "holdfast-model-registry check, then restore the database from its backup"
_NOT_MEASURED: Final = Link("digests", "not-run", "content was not read")


def _uploaded(commit: Commit, review: Review | None) -> str:
    by = commit.author
    if review is not None and review.uploader != by:
        by = f"{review.uploader} ({by})"
    return f"by {by} at {commit.date.isoformat()}: {commit.title}"


def _origin(connection: sa.Connection, key: int, oid: str) -> tuple[Link, ...]:
    """Return where a copy came from; nothing for what was made or imported here."""
    row = connection.execute(
        sa.select(replicated.c.origin, replicated.c.key)
        .join(schema.commits, schema.commits.c.id == replicated.c.commit_id)
        .where(schema.commits.c.repository_id == key, schema.commits.c.oid == oid)
    ).one_or_none()
    if row is None:
        return ()
    return (Link("origin", "attested", f"copied from {row.origin}, signed by key {row.key[:16]}"),)


def _receipt(verdict: tuple[ModelSignature, str, str] | None) -> Link:
    state, detail = verdict[1:] if verdict else ("absent", "")
    if state == "verified":
        return Link("receipt", "pass", detail)
    if state == "absent":
        return Link("receipt", "not-applicable", "no training receipt")
    return Link("receipt", "inconclusive" if state == "untrusted" else "fail", detail)


def _scan(review: Review | None) -> Link:
    if review is None:
        return Link("scan", "not-run", "never scanned", "restart the registry: it scans")
    if review.scan != "done":
        return Link("scan", "not-run", "its scan is not done yet", "try again in a moment")
    if not review.findings:
        return Link("scan", "pass", "nothing was found")
    said = "; ".join(str(each) for each in review.findings[:_SOME])
    grave = [each for each in review.findings if each.action != "flag"]
    return Link("scan", "fail" if grave else "attested", said)


def _approval(
    review: Review | None, approvals: Sequence[Approval], entries: Sequence[Entry]
) -> Link:
    if review is None:
        return Link("approval", "fail", "it has no review", "restart the registry: it scans")
    by = ", ".join(f"{each.approver} at {each.at}" for each in approvals)
    if review.state is not states.State.APPROVED:
        said = f"{review.state.value}" + (f", approved by {by}" if by else "")
        return Link("approval", "fail", said, "holdfast model approve ORG/NAME@REVISION")
    digest = states.content_digest({each.path: each.sha256 or "" for each in entries})
    if digest != review.digest:
        return Link(
            "approval", "fail", f"what was approved ({review.digest}) is not this", _RESTORE
        )
    return Link("approval", "pass", f"by {by}, for {digest}")


def _lineage(ancestors: Sequence[Ancestor]) -> Link:
    if not ancestors:
        return Link("lineage", "attested", "neither card nor receipt names a source")
    known = [each for each in ancestors if each.repository]
    said = ", ".join(
        f"{each.repository}@{each.commit[:12]} ({each.source.evidence})" for each in known[:_SOME]
    )
    unknown = [each.source.named for each in ancestors if not each.repository]
    parts = [said] if said else []
    parts += [f"not known here: {', '.join(unknown[:_SOME])}"] if unknown else []
    signed = all(each.source.evidence == "receipt" and each.commit for each in ancestors)
    return Link("lineage", "pass" if signed else "attested", "; ".join(parts))


def _labels(labels: Mapping[str, str], contradiction: str) -> Link:
    if contradiction:
        fix = "correct the labels, or what it says it was made from"
        return Link("labels", "fail", contradiction, fix)
    if missing := [kind for kind in LABELS if not labels.get(kind)]:
        fix = "holdfast-model-registry import --jurisdiction … --classification …"
        return Link("labels", "fail", f"no {' and no '.join(missing)}: nobody may read it", fix)
    return Link("labels", "pass", ", ".join(f"{kind} {labels[kind]}" for kind in LABELS))
