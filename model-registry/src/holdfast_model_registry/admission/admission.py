"""The registry's answer to the protocol: what is taken in, and who gets what was taken in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import AdmissionError, DisabledError, FileSecurity
from holdfast_model_registry.admission.findings import Action, Finding, in_words, only
from holdfast_model_registry.admission.judging import CARD, Revision, judge
from holdfast_model_registry.admission.revisions import bears_weights, disagreements, look_at
from holdfast_model_registry.review import store
from holdfast_model_registry.review.ledger import note_refusal, note_state
from holdfast_model_registry.review.rights import serves
from holdfast_model_registry.review.states import Actor, State, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import sqlalchemy as sa

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.admission import Proposal
    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.review.reviewing import Reviewing
    from holdfast_model_registry.review.rights import Rights

_OF_ONE_FILE: Final = frozenset({"pickle", "archive", "format", "malformed", "remote-code", "name"})


def actor_of(caller: Caller) -> Actor:
    """Return a caller as reviews name who acts."""
    return Actor(caller.name, caller.kind, caller.token_id)


class PolicyAdmission:
    """Applies the policy to models; repositories of other kinds pass."""

    def __init__(self, reviewing: Reviewing, rights: Rights, scan_soon: Callable[[], None]) -> None:
        self.engine = reviewing.engine
        self.policy = reviewing.policy
        self.ledger = reviewing.ledger
        self.observer = reviewing.observer
        self.rights = rights
        self.scan_soon = scan_soon

    def admit(self, proposal: Proposal) -> None:
        """Refuse what the policy refuses, in words that the client shows."""
        if proposal.repository.id.kind != "model":
            return
        with self.engine.connect() as connection:
            findings = self._judge(connection, proposal)
        if refused := only(findings, Action.REFUSE):
            actor = actor_of(proposal.caller)
            note_refusal(self.ledger, actor, str(proposal.repository.id), refused)
            raise AdmissionError(f"The registry's policy refuses this. {in_words(refused)}")

    def published(self, connection: sa.Connection, proposal: Proposal, commit_oid: str) -> None:
        """Begin the revision's review, in the transaction that makes it visible."""
        key = proposal.repository.key
        if proposal.repository.id.kind != "model" or store.find(connection, key, commit_oid):
            return
        findings = self._judge(connection, proposal)
        if refused := only(findings, Action.REFUSE):
            raise AdmissionError(f"The registry's policy refuses this. {in_words(refused)}")
        self.observer.keep(connection, proposal.changed)
        state, waits = settled(findings), bool(only(findings, Action.WAIT))
        reason = self._inherited(connection, proposal)
        if reason:
            state = State.QUARANTINED
        actor = actor_of(proposal.caller)
        store.insert(
            connection,
            key,
            commit_oid,
            state=state,
            waiting=waits,
            uploader=actor.name,
            findings=findings,
            reason=reason,
        )
        store.moved(connection, key, commit_oid, before="", after=state, actor=actor, note=reason)
        model = str(proposal.repository.id)
        note_state(self.ledger, actor, model, commit_oid, before="", after=state, note=reason)
        if waits:
            self.scan_soon()

    def check_fetch(self, caller: Caller, repository: Repository, commit: Commit) -> None:
        """Let readers have what was scanned, serving hosts what was approved."""
        if repository.id.kind != "model":
            return
        with self.engine.connect() as connection:
            state = store.state_of(connection, repository.key, commit.oid)
        if state is State.APPROVED:
            return
        shown = state or "not reviewed"
        if serves(caller):
            raise DisabledError(
                f"{repository.id} at {commit.oid[:12]} is {shown}: only approved revisions are "
                f"served; a reviewer can: holdfast model approve {repository.id}@{commit.oid[:12]}"
            )
        if state is State.SCANNED:
            return
        if state is None:
            self.scan_soon()
        if self.rights.may(caller, Verb.WRITE, repository):
            return
        if self.rights.may_approve(caller, repository):
            return
        raise DisabledError(self._why(repository, commit, shown))

    def withheld(self, caller: Caller, repositories: Sequence[Repository]) -> Collection[int]:
        """Return those with a revision in quarantine that the caller would not be sent."""
        models = {each.key: each for each in repositories if each.id.kind == "model"}
        with self.engine.connect() as connection:
            held = store.with_held_revisions(connection, list(models))
        return {
            key
            for key in held
            if not self.rights.may(caller, Verb.WRITE, models[key])
            and not self.rights.may_approve(caller, models[key])
        }

    def security(self, repository: Repository, commit: Commit) -> Mapping[str, FileSecurity]:
        """Return what is known of each file: found wrong, found sound, or not looked at yet."""
        with self.engine.connect() as connection:
            review = store.find(connection, repository.key, commit.oid)
        if review is None:
            return {}
        found: dict[str, FileSecurity] = {}
        for finding in review.findings:
            if not finding.path or finding.name not in _OF_ONE_FILE | {"scan"}:
                continue
            known = found.get(finding.path)
            if finding.name == "scan":
                if known is None:
                    found[finding.path] = FileSecurity("queued", finding.detail)
            elif known is None or known.status == "queued" or finding.danger:
                found[finding.path] = FileSecurity(
                    "unsafe" if finding.danger else "suspicious", finding.detail
                )
        return _Security(found)

    def _inherited(self, connection: sa.Connection, proposal: Proposal) -> str:
        """Return why somebody holds the parent back: what was added to it is held like it.

        Or a revision that files are copied from: a pull request that is merged.
        """
        parent = () if proposal.parent is None else (proposal.parent,)
        for commit in (*parent, *proposal.sources):
            before = store.find(connection, proposal.repository.key, commit.oid)
            held = before and before.state in {State.QUARANTINED, State.REJECTED}
            if before and held and before.reason:
                return before.reason
        return ""

    def _judge(self, connection: sa.Connection, proposal: Proposal) -> list[Finding]:
        """Judge what is new, and take over what the parent's review found in the rest."""
        parent = proposal.parent
        key = proposal.repository.key
        before = None if parent is None else store.find(connection, key, parent.oid)
        labels = self.rights.labels(key)
        if parent is None or before is None:
            revision = look_at(
                connection,
                self.observer,
                tuple(proposal.files),
                proposal.blob,
                changed=[file.path for file in proposal.changed],
                labels=labels,
            )
            return judge(revision, self.policy)
        changed = [file.path for file in proposal.changed]
        gone = {*changed, *proposal.deleted}
        inherited = [each for each in before.findings if each.path and each.path not in gone]
        looked = look_at(
            connection,
            self.observer,
            proposal.changed,
            proposal.blob,
            changed=changed,
            labels=labels,
        )
        card = looked.card if CARD in gone else parent.facts.get("cardData")
        weights = any(bears_weights(path) for path in gone)
        unsound = any(seen.problem for seen in looked.observations.values())
        revision = Revision(
            observations=looked.observations,
            changed=frozenset(changed),
            card=card,
            disagreements=(
                tuple(disagreements(proposal.files, proposal.blob))
                if weights and not unsound
                else ()
            ),
            labels=labels,
        )
        kept = [
            each
            for each in inherited
            if each.name in _OF_ONE_FILE | {"scan"} or (each.name == "shards" and not weights)
        ]
        return [*judge(revision, self.policy), *kept]

    def _why(self, repository: Repository, commit: Commit, shown: str) -> str:
        with self.engine.connect() as connection:
            newest = store.newest_open(connection, repository.key)
        text = f"{repository.id} at {commit.oid[:12]} is {shown}"
        if newest is None:
            return f"{text}, and no other revision of it may be read yet"
        return f"{text}; the newest revision that you may read is {newest}"


class _Security(Mapping[str, FileSecurity]):
    """What was found; any other path is sound."""

    def __init__(self, found: dict[str, FileSecurity]) -> None:
        self._found = found

    def __getitem__(self, path: str) -> FileSecurity:
        return self._found.get(path, FileSecurity("safe"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
