"""The background scan: a thread that takes up whatever waits, in one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from holdfast_hub_protocol.access import UnavailableError
from holdfast_model_registry.admission.findings import Action, only
from holdfast_model_registry.formats.recognition import claim_of
from holdfast_model_registry.review import store
from holdfast_model_registry.review.ledger import note_state
from holdfast_model_registry.review.states import Actor, State, settled
from holdfast_model_registry.scanning import child

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast_hub_protocol.records import NewFile
    from holdfast_model_registry.review.reviewing import Reviewing

SCANNER: Final = Actor("scanner", "service")
_LOG: Final = logging.getLogger(__name__)
_PAUSE: Final = 2.0
_SOON: Final = 0.05  # the transaction that asks for a scan ends first
_AT_ONCE: Final = 20
_FILES_A_TURN: Final = 50  # a revision of many does not hold up the others


class Scanner:
    """Scans what waits; what it was at when it was killed waits still."""

    def __init__(self, reviewing: Reviewing, folder: Path) -> None:
        self.reviewing = reviewing
        self.lock_file = folder / "scan.lock"
        self._unreadable: set[str] = set()  # commits that were complained about
        self._wake = threading.Event()
        self._unreviewed = True  # looked for at the start, and when somebody meets one
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scanner", daemon=True)

    def start(self) -> None:
        """Begin; after a fork, not before."""
        self._thread.start()

    def soon(self) -> None:
        """Look again without waiting."""
        self._unreviewed = True
        self._wake.set()

    def stop(self) -> None:
        """End, with the file that is being looked at."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        descriptor = os.open(self.lock_file, os.O_CREAT | os.O_RDWR, 0o640)
        try:
            while not self._stop.is_set():
                try:
                    # Whoever holds the lock scans for all; it dies with its process.
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    while not self._stop.is_set() and self.round():
                        pass
                except BlockingIOError:
                    pass
                except (SQLAlchemyError, UnavailableError, OSError):
                    _LOG.exception("the scan failed and is tried again")
                if self._wake.wait(_PAUSE):
                    self._stop.wait(_SOON)
                self._wake.clear()
        finally:
            os.close(descriptor)

    def round(self) -> bool:
        """Scan some of what waits; return whether there was anything."""
        engine = self.reviewing.engine
        found = False
        if self._unreviewed:
            self._unreviewed = False
            with engine.connect() as connection:
                strangers = store.unreviewed(connection, _AT_ONCE)
            for repository, commit, author in strangers:
                found = self._adopt(repository, commit, author) or found
            self._unreviewed = len(strangers) == _AT_ONCE
        with engine.connect() as connection:
            waiting = store.waiting(connection, _AT_ONCE)
        for review in waiting:
            if self._stop.is_set():
                return False
            try:
                found = self._scan(review.repository, review.commit) or found
            except OSError as error:  # a content that is gone: this one waits, the others do not
                if review.commit not in self._unreadable:
                    self._unreadable.add(review.commit)
                    _LOG.error("commit %s cannot be scanned: %s", review.commit, error)
        return found

    def _adopt(self, repository: int, commit: str, author: str) -> bool:
        """Give a commit that came by another way the review that it lacks."""
        with self.reviewing.engine.begin() as connection:
            if store.find(connection, repository, commit) is not None:
                return False
            store.insert(
                connection,
                repository,
                commit,
                state=State.QUARANTINED,
                waiting=True,
                uploader=author,
                findings=(),
            )
        return True

    def _scan(self, repository: int, commit: str) -> bool:
        metadata = self.reviewing.storage.metadata
        owner = next(iter(metadata.repositories_by_key([repository])), None)
        stored = None if owner is None else metadata.commit(owner, commit)
        if owner is None or stored is None:
            return False  # deleted meanwhile, and its review with it
        name = str(owner.id)
        files = self.reviewing.files(stored)
        if not self._look_deeper(files):
            return True  # the others' turn, then on with this one
        with self.reviewing.engine.begin() as connection:
            review = store.lock(connection, repository, commit)
            if review is None or review.scan == store.DONE:
                return False
            findings = self.reviewing.judge(connection, repository, files)
            if only(findings, Action.WAIT):
                return False
            self.reviewing.observer.keep(connection, files)
            state = settled(findings)
            store.update(
                connection,
                review,
                scan=store.DONE,
                findings=[finding.as_json() for finding in findings],
            )
            # Whoever quarantined or rejected it meanwhile has the last word.
            if state is not review.state and not review.reason:
                store.update(connection, review, state=state)
                store.moved(
                    connection,
                    repository,
                    commit,
                    before=review.state,
                    after=state,
                    actor=SCANNER,
                    note="",
                )
                note_state(
                    self.reviewing.ledger, SCANNER, name, commit, before=review.state, after=state
                )
        return True

    def _look_deeper(self, files: Sequence[NewFile]) -> bool:
        """Look at some files that were not read to their end; return whether that was all.

        What is seen is kept at once: it is not looked for again after an end of any kind.
        """
        engine, observer = self.reviewing.engine, self.reviewing.observer
        blob = self.reviewing.storage.blobs.path
        with engine.connect() as connection:
            seen = observer.observe(connection, files, blob)
        by_path = {file.path: file for file in files}
        unread = [path for path, observation in seen.items() if not observation.complete]
        for path in unread[:_FILES_A_TURN]:
            if self._stop.is_set():
                return False
            sha256 = by_path[path].sha256
            deeper = child.look(path, blob(sha256))
            with engine.begin() as connection:
                observer.keep(connection, [by_path[path]])
                observer.replace(connection, (sha256, claim_of(path)), deeper)
        return len(unread) <= _FILES_A_TURN
