"""Who sends the bytes of a blob: this process, or the nginx in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from anyio import open_file
from starlette.responses import Response, StreamingResponse

from holdfast_hub_protocol.blobs import CHUNK_SIZE, BlobStore
from holdfast_hub_protocol.errors import HubError
from holdfast_hub_protocol.ranges import ByteRange, UnsatisfiableRangeError, parse_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send


class Sender(Protocol):
    """Makes the response to GET and HEAD of one blob."""

    def send(
        self, request: Request, sha256: str, size: int, headers: Mapping[str, str]
    ) -> Response:
        """Return the response with these headers; HubError 416 past the end."""


class DirectSender:
    """Sends blobs from this process."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs

    def send(
        self, request: Request, sha256: str, size: int, headers: Mapping[str, str]
    ) -> Response:
        """Answer with the whole file or the single range asked for."""
        path = self.blobs.path(sha256)
        if request.method == "HEAD":
            return _head(size, headers)
        wanted = requested_range(request, size, headers)
        if wanted is None:
            return WholeFile(path, size, headers)
        return StreamingResponse(
            _read(path, wanted),
            206,
            {
                **headers,
                "Content-Length": str(wanted.length),
                "Content-Range": f"bytes {wanted.first}-{wanted.last}/{size}",
            },
        )


class WholeFile(StreamingResponse):
    """A file from its first byte to its last, handed to the server itself where it can send it.

    Not starlette's FileResponse: that reads the Range header again and by other rules.
    """

    def __init__(self, path: Path, size: int, headers: Mapping[str, str]) -> None:
        whole = ByteRange(0, size - 1)
        super().__init__(_read(path, whole), 200, {**headers, "Content-Length": str(size)})
        self.path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        if "http.response.pathsend" not in scope.get("extensions", {}):
            await super().__call__(scope, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.pathsend", "path": str(self.path)})


class NginxSender:
    """Lets nginx send blobs: it maps `prefix` to the blob folder and applies ranges itself."""

    def __init__(self, blobs: BlobStore, prefix: str = "/_blobs/") -> None:
        self.blobs = blobs
        self.prefix = prefix

    def send(
        self, request: Request, sha256: str, size: int, headers: Mapping[str, str]
    ) -> Response:
        """Answer GET with X-Accel-Redirect, HEAD by itself."""
        if request.method == "HEAD":
            return _head(size, headers)
        requested_range(request, size, headers)  # a 416 is ours to say, with our headers
        return Response(
            None,
            200,
            {**headers, "X-Accel-Redirect": self.prefix + self.blobs.relative_path(sha256)},
        )


def requested_range(request: Request, size: int, headers: Mapping[str, str]) -> ByteRange | None:
    """Return the range to send, None for the whole; raise HubError 416 past the end."""
    condition = request.headers.get("if-range")
    if condition is not None and condition != headers.get("ETag"):
        return None
    try:
        return parse_range(request.headers.get("range"), size)
    except UnsatisfiableRangeError:
        raise HubError(
            416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"}
        ) from None


def _head(size: int, headers: Mapping[str, str]) -> Response:
    response = Response(None, 200, dict(headers))
    response.headers["Content-Length"] = str(size)
    return response


async def _read(path: Path, wanted: ByteRange) -> AsyncIterator[bytes]:
    async with await open_file(path, "rb") as file:
        await file.seek(wanted.first)
        left = wanted.length
        while left and (chunk := await file.read(min(CHUNK_SIZE, left))):
            left -= len(chunk)
            yield chunk
