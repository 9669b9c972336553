"""What goes back to the client: its head with the first part, and whether it is being taken."""

import asyncio

from starlette.types import Send

_PART_BYTES = 256 * 1024  # the server takes no more before the client has read


class Reply:
    """The sending side of one request. `headers` are added to those of the answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.started = False
        self.writing = False
        """True while a part is handed over: for long only if the client does not read."""

    async def whole(self, body: bytes, patience: float) -> None:
        """Send an answer that is no stream; TimeoutError where a part is not read in time."""
        self.writing = True
        await self._start(b"application/json", len(body))
        for at in range(0, max(1, len(body)), _PART_BYTES):
            more = at + _PART_BYTES < len(body)
            part = body[at : at + _PART_BYTES]
            async with asyncio.timeout(patience):
                await self._send({"type": "http.response.body", "body": part, "more_body": more})
        self.writing = False

    async def write(self, data: bytes) -> None:
        """Send a part of a stream."""
        self.writing = True
        if not self.started:
            await self._start(b"text/event-stream; charset=utf-8", None)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self.writing = False

    async def finish(self) -> None:
        """End a stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, content_type: bytes, length: int | None) -> None:
        self.started = True
        headers = [(b"content-type", content_type), *self.headers]
        if length is None:
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        else:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
