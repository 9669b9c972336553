"""What people do with revisions: look, approve, quarantine, reject; every step on the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.identifiers import is_sha256
from holdfast_hub_protocol.records import NewFile
from holdfast_model_registry.admission.findings import Action, in_words, only
from holdfast_model_registry.admission.judging import judge
from holdfast_model_registry.admission.revisions import look_at
from holdfast_model_registry.lineage_labels import labels_of
from holdfast_model_registry.review import store
from holdfast_model_registry.review.ledger import note_approval, note_state
from holdfast_model_registry.review.states import (
    State,
    TransitionError,
    check_approval,
    content_digest,
    settled,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.admission.findings import Finding
    from holdfast_model_registry.admission.observing import Observer
    from holdfast_model_registry.admission.policy import ModelPolicy
    from holdfast_model_registry.review.states import Actor
    from holdfast_model_registry.review.store import Review
    from holdfast_model_registry.storage import Storage
    from holdfast_trust.ledger import Ledger

MAX_NOTE: Final = 2000


class RefusedError(Exception):
    """A revision that the policy does not take in; the message says why."""


@dataclass(frozen=True)
class Reviewing:
    """The stores and the policy that reviews rest on."""

    storage: Storage
    policy: ModelPolicy
    ledger: Ledger
    observer: Observer

    @property
    def engine(self) -> sa.Engine:
        """The database of repositories and reviews."""
        return self.storage.metadata.engine

    def files(self, commit: Commit) -> tuple[NewFile, ...]:
        """Return the files of a commit as they were published."""
        return tuple(
            NewFile(entry.path, entry.size, entry.sha256, None if entry.is_lfs else entry.oid)
            for entry in self.storage.metadata.files(commit)
            if entry.sha256 is not None and is_sha256(entry.sha256)
        )

    def judge(
        self,
        connection: sa.Connection,
        repository: int,
        files: Sequence[NewFile],
        *,
        deep: bool = False,
        new: bool = False,
    ) -> list[Finding]:
        """Return what the policy says today of a whole revision; all of it can be `new`."""
        revision = look_at(
            connection,
            self.observer,
            files,
            self.storage.blobs.path,
            changed=[file.path for file in files] if new else (),
            labels=labels_of(connection, [repository]).get(repository, {}),
            deep=deep,
        )
        return judge(revision, self.policy)

    def begin(  # noqa: PLR0913 - an import is all of this
        self,
        connection: sa.Connection,
        repository: int,
        commit: str,
        files: Sequence[NewFile],
        importer: Actor,
        *,
        approves: bool = True,
    ) -> dict[str, Any]:
        """Begin the review of a revision that was brought in whole, unless it has one.

        The importer's word counts as one approval, where it `approves`. Returns what the event of
        the import says of it: `state`, `digest` and `approvals`. Raises RefusedError if the policy
        does not take it.
        """
        digest = content_digest({file.path: file.sha256 for file in files})
        known = store.find(connection, repository, commit)
        if known is None:
            findings = self.judge(connection, repository, files, deep=True, new=True)
            if refused := only(findings, Action.REFUSE):
                raise RefusedError(in_words(refused))
            self.observer.keep(connection, files)
            state = settled(findings)
            approves = approves and not only(findings, Action.HOLD, Action.BAR)
            if approves and self.policy.model_approvals == 1:
                state = State.APPROVED
            store.insert(
                connection,
                repository,
                commit,
                state=state,
                waiting=False,
                uploader=importer.name,
                findings=findings,
            )
            store.moved(
                connection, repository, commit, before="", after=state, actor=importer, note=""
            )
            known = store.find(connection, repository, commit)
            if known is not None and approves:
                store.approve(connection, known, importer, "brought in")
                store.update(connection, known, digest=digest if state is State.APPROVED else "")
        given = store.given(connection, repository, commit)
        return {
            "state": known.state if known else "",
            "digest": digest,
            "approvals": [each.approver for each in given],
        }

    def approve(self, actor: Actor, repository: Repository, commit: Commit, note: str) -> State:
        """Add a person's approval, after judging the whole revision by today's policy.

        Raises TransitionError where the policy, the state or the person stands in the way.
        """
        files = self.files(commit)
        digest = content_digest({file.path: file.sha256 for file in files})
        if self._scan_again(repository, commit, files):
            raise TransitionError("its scan had failed and is done again; try again in a moment")
        with self.engine.begin() as connection:
            review = self._locked(connection, repository, commit)
            if review.state is State.APPROVED:
                return review.state
            findings = self.judge(connection, repository.key, files)
            self.observer.keep(connection, files)
            given = store.given(connection, repository.key, commit.oid)
            check_approval(review.state, findings, actor, review.uploader, given)
            store.update(connection, review, findings=[finding.as_json() for finding in findings])
            return self._approve(
                connection, str(repository.id), review, actor, _checked(note), digest
            )

    def _scan_again(self, repository: Repository, commit: Commit, files: Sequence[NewFile]) -> bool:
        """Put a revision back in line where a look at it came to no end; return whether it is."""
        with self.engine.begin() as connection:
            review = store.lock(connection, repository.key, commit.oid)
            if review is None or not self.observer.forget_failed(connection, files):
                return False
            store.update(connection, review, scan=store.WAITING)
            return True

    def hold_back(
        self, actor: Actor, repository: Repository, commit: Commit, state: State, note: str
    ) -> State:
        """Quarantine or reject a revision whatever its state; its approvals are undone."""
        note = _checked(note)
        if not note:
            raise TransitionError("say why: whoever is refused the revision will read it")
        with self.engine.begin() as connection:
            review = self._locked(connection, repository, commit)
            if review.state is state and review.reason:
                return state
            store.withdraw_approvals(connection, review)
            store.update(connection, review, state=state, reason=note, digest="")
            self._moved(connection, str(repository.id), review, state, actor, note)
        return state

    def _locked(self, connection: sa.Connection, repository: Repository, commit: Commit) -> Review:
        review = store.lock(connection, repository.key, commit.oid)
        if review is None:
            raise TransitionError("it was not scanned yet; try again in a moment")
        return review

    def _approve(  # noqa: PLR0913, PLR0917 - an approval is all of this
        self,
        connection: sa.Connection,
        model: str,
        review: Review,
        actor: Actor,
        note: str,
        digest: str,
    ) -> State:
        store.approve(connection, review, actor, note)
        needed = self.policy.model_approvals
        note_approval(
            self.ledger, actor, model, review.commit, note=note, digest=digest, needed=needed
        )
        given = store.given(connection, review.repository, review.commit)
        if len(given) < needed:
            # Looked at and found fit by one: no longer held by hand, not yet served.
            if review.state is not State.SCANNED:
                store.update(connection, review, state=State.SCANNED, reason="")
                self._moved(connection, model, review, State.SCANNED, actor, note)
            return State.SCANNED
        store.update(connection, review, state=State.APPROVED, reason="", digest=digest)
        self._moved(
            connection,
            model,
            review,
            State.APPROVED,
            actor,
            note,
            digest=digest,
            approvals=[each.approver for each in given],
        )
        return State.APPROVED

    def _moved(  # noqa: PLR0913, PLR0917 - a transition is all of this
        self,
        connection: sa.Connection,
        model: str,
        review: Review,
        after: State,
        actor: Actor,
        note: str,
        *,
        digest: str = "",
        approvals: Sequence[str] = (),
    ) -> None:
        store.moved(
            connection,
            review.repository,
            review.commit,
            before=review.state,
            after=after,
            actor=actor,
            note=note,
        )
        note_state(
            self.ledger,
            actor,
            model,
            review.commit,
            before=review.state,
            after=after,
            note=note,
            digest=digest,
            approvals=approvals,
        )

    def detail(self, repository: Repository, commit: Commit) -> dict[str, Any]:
        """Return everything about a revision's review, as pages and serving hosts read it."""
        files = self.files(commit)
        with self.engine.connect() as connection:
            review = store.find(connection, repository.key, commit.oid)
            given = store.given(connection, repository.key, commit.oid)
            history = store.history(connection, repository.key, commit.oid)
        return {
            "id": str(repository.id),
            "commit": commit.oid,
            "title": commit.title,
            "state": review.state if review else State.QUARANTINED,
            "scan": review.scan if review else store.WAITING,
            "reason": review.reason if review else "it was not scanned yet",
            "uploader": review.uploader if review else commit.author,
            "digest": content_digest({file.path: file.sha256 for file in files}),
            "approved_digest": review.digest if review else "",
            "approvals": [
                {"by": each.approver, "kind": each.kind, "note": each.note, "at": each.at}
                for each in given
            ],
            "approvals_needed": self.policy.model_approvals,
            "findings": [finding.as_json() for finding in review.findings] if review else [],
            "history": history,
            "files": len(files),
            "bytes": sum(file.size for file in files),
            "created_at": review.created_at if review else "",
            "updated_at": review.updated_at if review else "",
        }

    def item(self, listed: store.Listed) -> dict[str, Any]:
        """Return a review as listings show it."""
        review = listed.review
        return {
            "id": str(listed.id),
            "commit": review.commit,
            "title": listed.title,
            "state": review.state,
            "scan": review.scan,
            "reason": review.reason,
            "uploader": review.uploader,
            "approvals": listed.approvals,
            "approvals_needed": self.policy.model_approvals,
            "findings": len(review.findings),
            "danger": any(finding.danger for finding in review.findings),
            "created_at": review.created_at,
            "updated_at": review.updated_at,
        }


def _checked(note: str) -> str:
    text = " ".join(note.split())
    if len(text) > MAX_NOTE:
        raise TransitionError(f"a note has at most {MAX_NOTE} characters")
    return text
