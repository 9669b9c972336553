"""The body of a request, read piece by piece by a handler that runs in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio.from_thread

from holdfast_hub_protocol import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from starlette.requests import Request

MAX_WHOLE_BODY: Final = 8 << 20
# Several are asked for at once: asking the event loop costs as much as copying 100 KB.
_AT_ONCE: Final = 1 << 20


class Body:
    """Read once, from its start to its end; what is not asked for is not taken in."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._ahead: Future[list[bytes]] | None = None
        self._ended = False
        self._received = 0
        self._taken_in = b""

    def pieces(self) -> Iterator[bytes]:
        """Yield what comes in; HubError if it ends before its end."""
        yield from self._taken()
        while not self._ended:
            yield from filter(None, anyio.from_thread.run(self._next_pieces))

    def large_pieces(self) -> Iterator[bytes]:
        """Yield the same a megabyte at a time, taking in the next one meanwhile.

        Quicker for whoever works long on each piece; holds up to three of them.
        """
        yield from self._taken()
        self._ahead = None if self._ended else self._ask()
        while self._ahead is not None:
            pieces = self._take_ahead()
            self._ahead = None if self._ended else self._ask()
            if piece := b"".join(pieces):
                yield piece

    def _taken(self) -> Iterator[bytes]:
        """Yield what was taken in before anybody asked for it."""
        if taken_in := self._taken_in:
            self._taken_in = b""
            yield taken_in
        if self._ahead is not None:
            yield from filter(None, self._take_ahead())

    def _take_ahead(self) -> list[bytes]:
        coming, self._ahead = self._ahead, None
        return coming.result() if coming is not None else []

    def _ask(self) -> Future[list[bytes]]:
        return asyncio.run_coroutine_threadsafe(self._next_pieces(), self._loop)

    def whole(self, most: int = MAX_WHOLE_BODY) -> bytes:
        """Return all of it; HubError 413 for more than `most` bytes."""
        content = bytearray()
        for piece in self.pieces():
            content += piece
            if len(content) > most:
                raise errors.HubError(413, "Request body too large")
        return bytes(content)

    async def take_in(self, most: int) -> None:
        """Read all of it before a thread is needed for it; HubError 413 for more than `most`."""
        content = bytearray()
        while not self._ended:
            content += b"".join(await self._next_pieces())
            if len(content) > most:
                raise errors.HubError(413, "Request body too large")
        self._taken_in = bytes(content)

    async def discard(self, most: int = MAX_WHOLE_BODY) -> None:
        """Take in and forget the rest: clients read an answer only once they have sent all."""
        try:
            if self._ahead is not None:  # nobody else may ask before this has come
                coming, self._ahead = self._ahead, None
                pieces = await asyncio.wrap_future(coming)
                most -= sum(map(len, pieces))
            while not self._ended and most > 0:
                most -= sum(map(len, await self._next_pieces()))
        except errors.HubError:
            self._ended = True

    async def _next_pieces(self) -> list[bytes]:
        pieces: list[bytes] = []
        size = 0
        while not self._ended and size < _AT_ONCE:
            message = await self._request.receive()
            if message["type"] != "http.request":
                self._ended = True
                raise errors.bad_request("the request ended early")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            self._ended = not message.get("more_body", False)
        self._received += size
        expected = self._request.headers.get("content-length")
        if self._ended and expected is not None and expected != str(self._received):
            raise errors.bad_request("the request ended early")
        return pieces
