"""One shard on its way to files: what may be used again, what must be built, and what it takes."""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.xet.building import Builder, note
from holdfast_hub_protocol.xet.errors import MissingXorbError, WrongContentError
from holdfast_hub_protocol.xet.hashing import to_hex
from holdfast_hub_protocol.xet.progress import StoppedError
from holdfast_hub_protocol.xet.shards import check_shard, read_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from holdfast_hub_protocol.endpoints import RepositoryVisit
    from holdfast_hub_protocol.xet.shards import ShardFile
    from holdfast_hub_protocol.xet.staged import Epoch

_LOG: Final = logging.getLogger(__name__)
AGAIN: Final = "run the upload again, and everything is sent"
# Each holds some megabytes and keeps a processor or the disk busy.
_UPLOADS: Final = threading.BoundedSemaphore(8)
# Small files take longer to be made durable than to be written, and that goes well together.
_THREADS: Final = 4
_FILES_AT_ONCE: Final = 256


class ShardUpload:
    """The files that a shard lists, to be built by `run`; XetError if it is malformed.

    `files` is how many there are, `total` how many bytes, `built` how many of those so far.
    """

    def __init__(self, visit: RepositoryVisit, epoch: Epoch, shard: memoryview) -> None:
        self.files = check_shard(shard)
        self.total = sum(file.size for file in read_files(shard))
        self.built = 0
        self._hub = visit.hub
        self._caller = visit.caller
        self._repository = visit.repository
        self._epoch = epoch
        self._shard = shard
        self._stopped = False
        self._counting = threading.Lock()
        self._idle: queue.SimpleQueue[Builder] = queue.SimpleQueue()

    def run(self) -> None:
        """Build the files; XetError, HubError or OSError if it cannot be done."""
        count = min(_THREADS, self.files)
        with _UPLOADS, self._ending_epoch(), ThreadPoolExecutor(max(1, count)) as threads:
            for _ in range(count):
                self._idle.put(Builder(self._epoch, self._hub.blobs, self._progress))
            self._check()
            files = read_files(self._shard)
            while batch := list(islice(files, _FILES_AT_ONCE)):
                self._make(batch, threads)

    def stop(self) -> None:
        """Have `run` end soon: nobody waits for it any more."""
        self._stopped = True

    def _check(self) -> None:
        """Refuse what cannot be built before anything is."""
        builder = Builder(self._epoch, self._hub.blobs, self._progress)
        for file in read_files(self._shard):
            builder.check(file)
        # A small shard can repeat one chunk to any size.
        free = self._hub.blobs.free_bytes()
        if free is not None and self.total > free:
            raise errors.forbidden("The registry has not enough free space for this upload")

    def _make(self, files: Sequence[ShardFile], threads: ThreadPoolExecutor) -> None:
        """Stage some files: those that the caller may use as they are, and those to build."""
        staging, repository = self._hub.staging, self._repository
        known = {file.sha256: file.size for file in files if file.sha256 is not None}
        usable = staging.usable_of(self._caller, repository, known)
        reserved = {_key(file): file.size for file in files if file.sha256 not in usable}
        # They take the place of their xorbs, not more.
        staging.release(repository.key, _xorbs(files))
        staging.reserve(repository, reserved)
        try:
            digests = list(threads.map(partial(self._digest, usable), files))
            for file, digest in zip(files, digests, strict=True):
                staging.stage(repository.key, digest, file.size)
        finally:
            staging.release(repository.key, reserved)
        note(self._epoch, zip(files, digests, strict=True))
        staging.reserve(repository, self._left(files))

    def _left(self, files: Sequence[ShardFile]) -> dict[str, int]:
        """Return what of the files' xorbs is in no file: it lies there, and counts as before."""
        xorbs = {term.xorb for file in files for term, _ in file.terms()}
        left = {f"xorb:{to_hex(xorb)}": self._epoch.left(xorb) for xorb in xorbs}
        return {key: size for key, size in left.items() if size}

    def _digest(self, usable: Collection[str], file: ShardFile) -> str:
        """Return the SHA-256 of the blob that a file now is."""
        builder, known = self._idle.get(), file.sha256
        try:
            if known is not None and known in usable and builder.find(file, known):
                return known
            return builder.build(file).sha256
        finally:
            self._idle.put(builder)

    def _progress(self, count: int) -> None:
        with self._counting:
            self.built += count
        if self._stopped:
            raise StoppedError

    @contextmanager
    def _ending_epoch(self) -> Iterator[None]:
        """Have clients forget what they uploaded, if some of it is gone or damaged."""
        try:
            yield
        except (MissingXorbError, WrongContentError) as error:
            self._epoch.end()
            _LOG.warning("%s: %s; its clients start over", self._repository.id, error)
            raise type(error)(f"{error}; {AGAIN}") from error


def _key(file: ShardFile) -> str:
    """Return under what a file is reserved."""
    return file.sha256 or f"file:{to_hex(file.file_hash)}"


def _xorbs(files: Sequence[ShardFile]) -> list[str]:
    """Return under what the xorbs of files are reserved."""
    return [
        f"xorb:{to_hex(xorb)}" for xorb in {term.xorb for file in files for term, _ in file.terms()}
    ]
