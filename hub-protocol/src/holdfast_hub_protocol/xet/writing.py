"""Uploads: xorbs are taken apart and staged as they come; shards make files of them."""

from __future__ import annotations

import logging
import mmap
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.xet.building import Builder
from holdfast_hub_protocol.xet.errors import MissingXorbError, WrongContentError, XetError
from holdfast_hub_protocol.xet.hashing import from_hex, to_hex
from holdfast_hub_protocol.xet.progress import ProgressResponse, StoppedError
from holdfast_hub_protocol.xet.shards import MAX_SHARD, check_shard, read_files
from holdfast_hub_protocol.xet.tokens import claims_of
from holdfast_hub_protocol.xet.xorbs import MAX_STORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit
    from holdfast_hub_protocol.xet.shards import ShardFile
    from holdfast_hub_protocol.xet.staged import Epoch

_LOG: Final = logging.getLogger(__name__)
# Each holds some megabytes and keeps a processor or the disk busy.
_BUILDERS: Final = threading.BoundedSemaphore(8)
_AGAIN: Final = "run the upload again, and everything is sent"


def upload_xorb(visit: RepositoryVisit) -> Response:
    """Take in a xorb."""
    with _to_its_end(visit):
        claims_of(visit)
        digest = _hash(visit)
        epoch = _epoch(visit)
        key = f"xorb:{to_hex(digest)}"
        staging = visit.hub.staging
        staging.reserve(visit.repository, {key: _announced(visit)})
        try:
            index = epoch.receive(digest, visit.stream)
        except BaseException:
            staging.release(visit.repository.key, [key])
            raise
        if index is not None:
            visit.details["xorb"] = to_hex(digest)
            visit.details["size"] = sum(index.lengths)
            staging.reserve(visit.repository, {key: sum(index.lengths)})
    return JSONResponse({"was_inserted": index is not None})


def upload_shard(visit: RepositoryVisit) -> Response:
    """Make files of what a shard lists, and answer when they are there."""
    upload = _upload(visit)
    try:
        upload.run()
    except XetError as error:
        raise errors.bad_request(str(error)) from error
    return JSONResponse({"result": 1})


def upload_shard_with_progress(visit: RepositoryVisit) -> Response:
    """Do as `upload_shard`, and tell the client meanwhile how far it is, a line of JSON each."""
    upload = _upload(visit)
    return ProgressResponse(upload.run, upload.stop, lambda: (upload.built, upload.total))


def _upload(visit: RepositoryVisit) -> _Upload:
    """Take in a shard and check its form; the files are built by `run`."""
    claims_of(visit)
    epoch = _epoch(visit)
    try:
        upload = _Upload(visit, epoch, _receive_shard(visit))
    except XetError as error:
        raise errors.bad_request(str(error)) from error
    visit.details["files"] = upload.files
    visit.details["size"] = upload.total
    return upload


def _receive_shard(visit: RepositoryVisit) -> memoryview:
    """Take in the body of a request into a mapped file that nobody sees: it is read twice."""
    size = 0
    with tempfile.TemporaryFile(dir=visit.hub.blobs.incoming) as file:
        for piece in visit.stream:
            size += len(piece)
            if size > MAX_SHARD:
                raise errors.HubError(413, f"A shard has at most {MAX_SHARD} bytes")
            file.write(piece)
        if not size:
            raise errors.bad_request("the shard is empty")
        file.flush()
        # Given back with the last piece of it that somebody holds.
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))


@dataclass
class _Upload:
    """The building of one shard's files."""

    visit: RepositoryVisit
    epoch: Epoch
    shard: memoryview
    files: int = 0
    total: int = 0  # bytes
    built: int = 0
    stopped: bool = False

    def __post_init__(self) -> None:
        self.files = check_shard(self.shard)
        self.total = sum(file.size for file in read_files(self.shard))

    def run(self) -> None:
        """Build the files; XetError, HubError or OSError if it cannot be done."""
        with _BUILDERS, self._ending_epoch():
            builder = Builder(self.epoch, self.visit.hub.blobs, self._progress)
            for file in read_files(self.shard):
                builder.check(file)
            self._check_space()
            for file in read_files(self.shard):
                self._build(builder, file)

    def stop(self) -> None:
        """Have `run` end soon: nobody waits for it any more."""
        self.stopped = True

    def _build(self, builder: Builder, file: ShardFile) -> None:
        hub, repository = self.visit.hub, self.visit.repository
        known = file.sha256
        if known is not None and hub.staging.usable(
            self.visit.caller, repository, known, file.size
        ):
            built = self.built
            if builder.find(file, known):
                hub.staging.release(repository.key, _reservations(file))
                hub.staging.stage(repository.key, known, file.size)
                return
            self.built = built
        key = known or f"file:{to_hex(file.file_hash)}"
        hub.staging.release(repository.key, _reservations(file))
        hub.staging.reserve(repository, {key: file.size})
        try:
            content = builder.build(file)
        except BaseException:
            hub.staging.release(repository.key, [key])
            raise
        hub.staging.stage(repository.key, content.sha256, content.size)
        if known is None:
            hub.staging.release(repository.key, [key])

    def _check_space(self) -> None:
        """Refuse what does not fit: a small shard can repeat one chunk to any size."""
        free = self.visit.hub.blobs.free_bytes()
        if free is not None and self.total > free:
            raise errors.forbidden("The registry has not enough free space for this upload")

    def _progress(self, count: int) -> None:
        self.built += count
        if self.stopped:
            raise StoppedError

    @contextmanager
    def _ending_epoch(self) -> Iterator[None]:
        """Have clients forget what they uploaded, if some of it is gone or damaged."""
        try:
            yield
        except (MissingXorbError, WrongContentError) as error:
            self.epoch.end()
            _LOG.warning("%s: %s; its clients start over", self.visit.repository.id, error)
            raise type(error)(f"{error}; {_AGAIN}") from error


def _reservations(file: ShardFile) -> list[str]:
    """Return under what the xorbs of a file are reserved: the file takes their place."""
    return [f"xorb:{to_hex(xorb)}" for xorb in {term.xorb for term, _ in file.terms()}]


def _epoch(visit: RepositoryVisit) -> Epoch:
    epoch = visit.hub.xorbs.epoch(visit.repository, visit.parameter("epoch"))
    if epoch is None:
        raise errors.HubError(404, f"This upload took too long; {_AGAIN}")
    return epoch


def _hash(visit: RepositoryVisit) -> bytes:
    return from_hex(visit.parameter("hash"))


@contextmanager
def _to_its_end(visit: RepositoryVisit) -> Iterator[None]:
    """Answer 400 to what is malformed, once all of it has come.

    Clients send a xorb whole before they read an answer, and try again for minutes if they
    cannot.
    """
    try:
        yield
    except (XetError, errors.HubError) as error:
        left = MAX_STORED
        for piece in visit.stream:
            left -= len(piece)
            if left < 0:
                break
        if isinstance(error, XetError):
            raise errors.bad_request(str(error)) from error
        raise


def _announced(visit: RepositoryVisit) -> int:
    """Return how long the body says it is; as long as may be if it does not say."""
    text = visit.request.headers.get("content-length", "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else MAX_STORED
    if size > MAX_STORED:
        raise errors.HubError(413, f"A xorb has at most {MAX_STORED} bytes")
    return size
