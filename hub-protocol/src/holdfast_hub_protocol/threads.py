"""Handlers run in threads, so that one that waits for the disk or a lock keeps up no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.bodies import Body

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

# Those who send bodies wait for one another, never those who read.
SENDERS: Final = 64
ANYBODIES: Final = 4  # at once, of those who need no token
MOST_OF_ANYBODY: Final = 1 << 20  # bytes
# One for each event loop.
_FOR_SENDERS: Final = RunVar[anyio.CapacityLimiter]("senders")
_FOR_ANYBODY: Final = RunVar[anyio.CapacityLimiter]("anybodies")


async def in_thread(answer: Callable[[Request, Body], Response], request: Request) -> Response:
    """Return what a handler answers; it reads the body as far as it wants to."""
    body = Body(request)
    limiter = None if request.method in {"GET", "HEAD"} else _limiter(_FOR_SENDERS, SENDERS)
    try:
        return await anyio.to_thread.run_sync(answer, request, body, limiter=limiter)
    except errors.HubError:
        await body.discard()
        raise


async def in_thread_for_anybody(
    answer: Callable[[Request, Body], Response], request: Request
) -> Response:
    """Return what a handler answers that asks for no token, at nobody else's expense.

    The body is taken in first: whoever sends slowly keeps no thread.
    """
    body = Body(request)
    try:
        await body.take_in(MOST_OF_ANYBODY)
    except errors.HubError:
        await body.discard()
        raise
    return await anyio.to_thread.run_sync(
        answer, request, body, limiter=_limiter(_FOR_ANYBODY, ANYBODIES)
    )


def _limiter(kept: RunVar[anyio.CapacityLimiter], most: int) -> anyio.CapacityLimiter:
    try:
        return kept.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(most)
        kept.set(limiter)
        return limiter
