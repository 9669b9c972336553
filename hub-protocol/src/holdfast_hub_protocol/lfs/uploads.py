"""Uploads in one piece: PUT to a signed address."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy.exc
from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.blobs import DigestMismatchError, SizeMismatchError
from holdfast_hub_protocol.lfs.addresses import announced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit, Visit
    from holdfast_hub_protocol.lfs.addresses import Announced


def put(visit: RepositoryVisit) -> Response:
    """Take in an object; what is answered with 200 is on disk and waits for its commit."""
    asked = announced(visit)
    if asked.part_size:
        raise errors.bad_request("this object is uploaded in parts")
    check_length(visit, asked.size)
    with refusals(), visit.hub.blobs.receive(asked.size) as incoming:
        for piece in visit.large_pieces:
            incoming.write(piece)
        incoming.keep(asked.sha256)
    stage(visit, asked)
    return JSONResponse({"oid": asked.sha256, "size": asked.size})


def stage(visit: Visit, asked: Announced) -> None:
    """Note that the object waits for its commit; HubError if it or the repository just went."""
    try:
        with unless_deleted():
            visit.hub.staging.stage(asked.repository_key, asked.sha256, asked.size)
    except FileNotFoundError as error:  # gc with hardly any grace was quicker
        raise errors.HubError(503, "The upload was collected at once; send it again") from error


@contextmanager
def unless_deleted() -> Iterator[None]:
    """Say as an answer that the repository was deleted while the upload went on."""
    try:
        yield
    except sqlalchemy.exc.IntegrityError as error:
        raise errors.repository_not_found() from error


def check_length(visit: Visit, size: int) -> None:
    """Refuse a body of another length before any of it is read."""
    length = visit.request.headers.get("content-length")
    if length is not None and length != str(size):
        raise errors.bad_request(f"Content-Length is {length}, but {size} bytes were announced")


@contextmanager
def refusals() -> Iterator[None]:
    """Say as answers what is wrong with content, or that the disk is full; nothing was kept."""
    try:
        yield
    except SizeMismatchError as error:
        raise errors.bad_request(f"The upload has the wrong size: {error}") from error
    except DigestMismatchError as error:
        raise errors.bad_request(f"The upload is not what was announced: {error}") from error
    except OSError as error:
        if not errors.is_disk_full(error):
            raise
        raise errors.disk_full() from error
