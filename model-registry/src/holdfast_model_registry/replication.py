"""Taking copies of repositories in: signed manifests first, then the blobs that are missing.

Commit ids stay; digests, git ids and trees are worked out anew. What is here already is not asked
for again, and an interrupted download goes on where it stopped. Approvals do not travel: this
registry's policy judges each revision, and its people approve it.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.blobs import DigestMismatchError
from holdfast_hub_protocol.facts import read_facts
from holdfast_hub_protocol.git_objects import folder_ids, object_id
from holdfast_hub_protocol.holdings import MissingBlobError, check_blobs
from holdfast_hub_protocol.identifiers import BadIdentifierError
from holdfast_hub_protocol.publishing import ConflictError, publish
from holdfast_hub_protocol.records import NewCommit
from holdfast_hub_protocol.writing import commit_key, head_oid, point, touch
from holdfast_model_registry import commit_manifest, lineage
from holdfast_model_registry.lineage_labels import LABELS, may_be_in, strictest
from holdfast_model_registry.readers import access, put_access
from holdfast_model_registry.replication_documents import replicated, verify_state
from holdfast_model_registry.review.reviewing import RefusedError
from holdfast_model_registry.signing_envelope import EnvelopeError
from holdfast_model_registry.signing_provenance import ContradictionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from holdfast_hub_protocol.identifiers import RepositoryId
    from holdfast_hub_protocol.records import NewFile, Repository
    from holdfast_model_registry.commit_manifest import CommitManifest, SignedManifest
    from holdfast_model_registry.replication_documents import RepositoryState
    from holdfast_model_registry.replication_sources import Source
    from holdfast_model_registry.review.reviewing import Reviewing
    from holdfast_model_registry.review.states import Actor
    from holdfast_model_registry.signing_envelope import TrustedKey
    from holdfast_model_registry.signing_provenance import Provenance
    from holdfast_model_registry.storage import Storage
    from holdfast_trust.ledger import Ledger

_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Place:
    """Where this registry stands, and the highest classification that it may hold."""

    jurisdiction: str
    at_most: str


@dataclass
class Copied:
    """What became of one repository."""

    id: str
    kind: str
    commits: int = 0
    blobs: int = 0
    bytes: int = 0
    refs: dict[str, str] = field(default_factory=dict)
    changed: bool = False
    refused: str = ""  # why it, or some of it, was not taken

    def as_json(self) -> dict[str, Any]:
        """Return it as `replicate` prints it."""
        return dict(vars(self))


class NotTakenError(Exception):
    """A repository, or a commit of it, that is not taken; the message says why."""


@dataclass(frozen=True)
class Replicator:
    """The stores to copy to, by which rules, and who does it."""

    storage: Storage
    ledger: Ledger
    reviewing: Reviewing
    provenance: Provenance
    source: Source
    origin: str  # the source, as the ledger names it
    trusted: Sequence[TrustedKey]  # the source's keys
    place: Place
    actor: Actor
    partials: Path
    step: Callable[[int], None] = lambda _: None

    def copy(self, repository: RepositoryId, teams: Sequence[str] | None) -> Copied:
        """Copy one repository; doing it again changes nothing.

        RegistryError where the source does not answer; what is not to be taken is said in
        `refused` instead, and leaves the other repositories alone.
        """
        copied = Copied(str(repository), repository.kind)
        try:
            state = self._state(repository)
            for oid in self._missing(repository, state):
                self._take(repository, state, oid, teams, copied)
            self._point(repository, state, teams, copied)
        except NotTakenError as error:
            copied.refused = str(error)
        return copied

    def _state(self, repository: RepositoryId) -> RepositoryState:
        try:
            state = verify_state(self.source.state(repository), self.trusted)
            if state.name != repository:
                raise NotTakenError(f"its state speaks of {state.kind} {state.repository}")
        except (EnvelopeError, BadIdentifierError) as error:
            raise NotTakenError(f"its state cannot be believed: {error}") from error
        if why := may_be_in(state.labels, self.place.jurisdiction, self.place.at_most):
            raise NotTakenError(f"it may not be here: {why}")
        return state

    def _missing(self, repository: RepositoryId, state: RepositoryState) -> list[str]:
        here = self.storage.metadata.repository(repository)
        if here is None:
            return list(state.commits)
        with self.storage.metadata.engine.connect() as connection:
            known = set(
                connection.execute(
                    sa.select(schema.commits.c.oid).where(
                        schema.commits.c.repository_id == here.key
                    )
                ).scalars()
            )
        return [oid for oid in state.commits if oid not in known]

    def _take(
        self,
        repository: RepositoryId,
        state: RepositoryState,
        oid: str,
        teams: Sequence[str] | None,
        copied: Copied,
    ) -> None:
        """Take one commit: its manifest, its missing blobs, then all of it in one transaction."""
        text = self.source.manifest(repository, oid)
        try:
            signed = commit_manifest.verify(text, self.trusted)
            _check(signed.manifest, state, oid)
        except (EnvelopeError, UnicodeEncodeError) as error:
            raise NotTakenError(f"the manifest of {oid} cannot be believed: {error}") from error
        manifest, files = signed.manifest, signed.manifest.new_files
        self._fetch(repository, oid, files, copied)
        examined = self.provenance.examine(files, self.storage.blobs.path)
        if why := self.provenance.refusal(repository.kind, examined):
            raise NotTakenError(f"{oid}: {why}")
        commit = NewCommit(
            repository=repository,
            oid=oid,
            files=files,
            title=manifest.title,
            author=manifest.author,
            date=manifest.date,
            message=manifest.message,
            parent_oid=manifest.parent,
            git_object=manifest.git_object,
        )
        facts = read_facts(files, self.storage.blobs.path)
        try:
            with self.storage.metadata.engine.begin() as connection:
                check_blobs(connection, self.storage.blobs, files)
                key = publish(connection, commit, facts, refs=()).repository_key
                self._label(connection, key, state, teams)
                self.provenance.keep(connection, key, oid, examined)
                review: dict[str, Any] = {}
                if repository.kind == "model":
                    review = self.reviewing.begin(
                        connection, key, oid, files, self.actor, approves=False
                    )
                _keep_origin(connection, key, oid, self.origin, signed, text)
                self._note(repository, oid, manifest, review)
        except (ContradictionError, RefusedError, ConflictError, MissingBlobError) as error:
            raise NotTakenError(f"{oid}: {error}") from error
        copied.commits += 1
        copied.changed = True

    def _label(
        self,
        connection: sa.Connection,
        key: int,
        state: RepositoryState,
        teams: Sequence[str] | None,
    ) -> bool:
        """Give a copy its labels, the strictest of the source's and its own, and its gate."""
        table = schema.repositories
        if state.gated:
            ungated = (table.c.id == key) & (table.c.gated == "")
            connection.execute(table.update().where(ungated).values(gated=state.gated))
        known = connection.execute(
            sa.select(access.c.labels).where(access.c.repository_id == key)
        ).scalar_one_or_none()
        labels = dict(state.labels)
        for kind in LABELS:
            if own := (known or {}).get(kind):
                labels[kind] = strictest(kind, (own, labels.get(kind, "")))
        _, changed = put_access(connection, key, teams=teams, labels=labels)
        if changed:
            lineage.inherit(connection, key)
        return changed

    def _fetch(
        self, repository: RepositoryId, oid: str, files: Sequence[NewFile], copied: Copied
    ) -> None:
        blobs = self.storage.blobs
        missing = {file.sha256: file for file in files if not blobs.has(file.sha256, file.size)}
        self.partials.mkdir(parents=True, exist_ok=True)

        ended = threading.Event()

        def step(more: int) -> None:
            if ended.is_set():
                raise NotTakenError("interrupted")
            self.step(more)

        def one(file: NewFile) -> None:
            partial = self.partials / file.sha256
            came = self.source.fetch(repository, oid, file, partial, step)
            try:
                content = blobs.add(came, file.sha256, link=came == partial)
            except DigestMismatchError as error:
                why = f"{oid}: {file.path} is not what was signed: {error}"
                raise NotTakenError(why) from error
            finally:
                partial.unlink(missing_ok=True)
            if file.git_oid is not None and content.git_oid != file.git_oid:
                raise NotTakenError(f"{oid}: {file.path} has another git id than was signed")

        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            try:
                for _ in pool.map(one, missing.values()):
                    copied.blobs += 1
            except BaseException:  # Ctrl-C too: what runs ends at its next byte, and is kept
                ended.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        copied.bytes += sum(file.size for file in missing.values())

    def _point(
        self,
        repository: RepositoryId,
        state: RepositoryState,
        teams: Sequence[str] | None,
        copied: Copied,
    ) -> None:
        """Point the refs as the source does, but none away from what was committed here."""
        here = self.storage.metadata.repository(repository)
        if here is None:
            return  # the source has no commit of it
        diverged = []
        with self.storage.metadata.engine.begin() as connection:
            table = schema.repositories
            connection.execute(
                sa.select(table.c.id).where(table.c.id == here.key).with_for_update()
            )
            copied.changed |= self._label(connection, here.key, state, teams)
            for ref, oid in state.refs.items():
                now = head_oid(connection, here, ref)
                key = commit_key(connection, here, oid)
                if now == oid or key is None:
                    continue
                if now is not None and not _came(connection, here, now):
                    diverged.append(ref)
                else:
                    point(connection, here, ref, key)
                    copied.changed = True
                    copied.refs[ref] = oid
            if copied.changed:
                touch(connection, here)
        if diverged:
            raise NotTakenError(
                f"{', '.join(diverged)} has commits of its own here: it was not moved"
            )

    def _note(
        self,
        repository: RepositoryId,
        oid: str,
        manifest: CommitManifest,
        review: Mapping[str, Any],
    ) -> None:
        self.ledger.append(
            {
                "action": f"{repository.kind}.replicate",
                "actor": self.actor.name,
                "actor_kind": self.actor.kind,
                repository.kind: str(repository),
                "commit": oid,
                "origin": self.origin,
                "files": {file.path: f"sha256:{file.sha256}" for file in manifest.files},
                "state": review.get("state", ""),
            }
        )


def _check(manifest: CommitManifest, state: RepositoryState, oid: str) -> None:
    """Raise EnvelopeError unless a manifest is whole and of this commit of this repository."""
    names = {state.repository.lower(), *state.former_names}
    if (manifest.commit, manifest.kind) != (oid, state.kind) or (
        manifest.repository.lower() not in names
    ):
        raise EnvelopeError(f"it speaks of {manifest.kind} {manifest.repository}@{manifest.commit}")
    if folder_ids({file.path: file.oid for file in manifest.new_files})[""] != manifest.tree:
        raise EnvelopeError("its files do not make its tree")
    content = manifest.git_object
    if content is None:
        return  # an import that kept the id it came with
    if object_id("commit", content) != oid or not content.startswith(
        f"tree {manifest.tree}\n".encode()
    ):
        raise EnvelopeError("git's text of the commit is another's")


def _came(connection: sa.Connection, repository: Repository, oid: str) -> bool:
    """Tell whether a commit was copied: the source may move away from it, and was there before."""
    return bool(
        connection.execute(
            sa.select(sa.func.count())
            .select_from(replicated)
            .join(schema.commits, schema.commits.c.id == replicated.c.commit_id)
            .where(schema.commits.c.repository_id == repository.key, schema.commits.c.oid == oid)
        ).scalar_one()
    )


def _keep_origin(  # noqa: PLR0913, PLR0917 - a row is all of this
    connection: sa.Connection,
    repository_key: int,
    oid: str,
    origin: str,
    signed: SignedManifest,
    text: bytes,
) -> None:
    commit = connection.execute(
        sa.select(schema.commits.c.id).where(
            schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid
        )
    ).scalar_one()
    connection.execute(
        replicated.insert().values(
            commit_id=commit, origin=origin, key=signed.key.hint, envelope=text.decode()
        )
    )
