"""Uploads: xorbs are taken apart and staged as they come; shards make files of them."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.xet.errors import XetError
from holdfast_hub_protocol.xet.hashing import from_hex, to_hex
from holdfast_hub_protocol.xet.progress import ProgressResponse
from holdfast_hub_protocol.xet.shard_upload import AGAIN, ShardUpload
from holdfast_hub_protocol.xet.shards import MAX_SHARD
from holdfast_hub_protocol.xet.tokens import claims_of
from holdfast_hub_protocol.xet.xorbs import MAX_STORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit
    from holdfast_hub_protocol.xet.staged import Epoch

_NEARLY: Final = 0.99


def upload_xorb(visit: RepositoryVisit) -> Response:
    """Take in a xorb."""
    with _to_its_end(visit):
        claims_of(visit)
        digest = _hash(visit)
        epoch = _epoch(visit)
        key = f"xorb:{to_hex(digest)}"
        staging = visit.hub.staging
        announced = _announced(visit)
        staging.reserve(visit.repository, {key: announced})
        try:
            index = epoch.receive(digest, visit.stream)
        except BaseException:
            staging.release(visit.repository.key, [key])
            raise
        if index is not None:
            visit.details["xorb"] = to_hex(digest)
            visit.details["size"] = size = sum(index.lengths)
            # What does not compress is a little smaller than announced: not worth another wait
            # for the disk, which is busy with what came.
            if not announced * _NEARLY <= size <= announced:
                staging.reserve(visit.repository, {key: size})
    return JSONResponse({"was_inserted": index is not None})


def upload_shard(visit: RepositoryVisit) -> Response:
    """Make files of what a shard lists, and answer when they are there."""
    upload = _upload(visit)
    with _answered():
        upload.run()
    return JSONResponse({"result": 1})


def upload_shard_with_progress(visit: RepositoryVisit) -> Response:
    """Do as `upload_shard`, and tell the client meanwhile how far it is, a line of JSON each."""
    upload = _upload(visit)
    return ProgressResponse(upload.run, upload.stop, lambda: (upload.built, upload.total))


def _upload(visit: RepositoryVisit) -> ShardUpload:
    """Take in a shard and check its form; the files are built by `run`."""
    claims_of(visit)
    epoch = _epoch(visit)
    with _answered():
        upload = ShardUpload(visit, epoch, _receive_shard(visit))
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


def _epoch(visit: RepositoryVisit) -> Epoch:
    epoch = visit.hub.xorbs.epoch(visit.repository, visit.parameter("epoch"))
    if epoch is None:
        raise errors.HubError(404, f"This upload took too long; {AGAIN}")
    return epoch


def _hash(visit: RepositoryVisit) -> bytes:
    return from_hex(visit.parameter("hash"))


@contextmanager
def _to_its_end(visit: RepositoryVisit) -> Iterator[None]:
    """Do as `_answered`, once all of the body has come.

    Clients send a xorb whole before they read an answer, and try again for minutes if they
    cannot.
    """
    try:
        with _answered():
            yield
    except errors.HubError:
        left = MAX_STORED
        for piece in visit.stream:
            left -= len(piece)
            if left < 0:
                break
        raise


@contextmanager
def _answered() -> Iterator[None]:
    """Answer 400 to what is malformed, and 403 if the disk is full."""
    try:
        yield
    except XetError as error:
        raise errors.bad_request(str(error)) from error
    except OSError as error:
        if not errors.is_disk_full(error):
            raise
        # 507 says it better, but then these clients try again, and wait for minutes each time.
        raise errors.forbidden(errors.disk_full().message) from error


def _announced(visit: RepositoryVisit) -> int:
    """Return how long the body says it is; as long as may be if it does not say."""
    text = visit.request.headers.get("content-length", "")
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else MAX_STORED
    if size > MAX_STORED:
        raise errors.HubError(413, f"A xorb has at most {MAX_STORED} bytes")
    return size
