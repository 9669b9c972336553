"""Signing what came without a manifest, while the registry serves already.

A registry that many commits were put into from outside would sign for minutes before it answered.
Until a commit is signed it is one without a manifest: it does not verify, and no other registry
takes it. Only what was there at the start is signed; what comes later is signed as it is published.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from holdfast_model_registry import commit_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_model_registry.storage import Storage

_LOG: Final = logging.getLogger(__name__)
_AT_START: Final = 2000  # a second or two
_PAUSES: Final = 3  # for each second of signing


def sign_some(storage: Storage) -> int:
    """Sign what takes no longer than anybody waits for a start; return how many."""
    batches = commit_manifest.sign_missing(storage.metadata.engine, storage.key)
    return sum(itertools.islice(batches, _AT_START // commit_manifest.BATCH))


class LateSigner:
    """A thread that signs the rest, in one process at a time; a later start goes on with it."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage = storage
        self._lock_file = folder / "late-signing.lock"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="late-signer", daemon=True)

    def start(self) -> None:
        """Begin; after a fork, not before."""
        self._thread.start()

    def stop(self) -> None:
        """End, with the batch that is being signed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def wait(self, seconds: float) -> bool:
        """Tell whether all that was there is signed, or becomes so in this time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        descriptor = os.open(self._lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if count := self._sign():
                _LOG.info("signed %d commits that had no manifest", count)
        except BlockingIOError:
            pass  # another process does it
        except (SQLAlchemyError, OSError):
            _LOG.exception("signing commits without a manifest failed; the next start tries again")
        finally:
            os.close(descriptor)

    def _sign(self) -> int:
        count = 0
        began = time.monotonic()
        for signed in commit_manifest.sign_missing(
            self._storage.metadata.engine, self._storage.key
        ):
            count += signed
            # Most of the time is for those who wait for this process, or to write.
            if self._stop.wait(_PAUSES * (time.monotonic() - began)):
                break
            began = time.monotonic()
        return count
