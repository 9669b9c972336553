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
_LIMITER: Final = RunVar[anyio.CapacityLimiter]("senders")  # one for each event loop


async def in_thread(answer: Callable[[Request, Body], Response], request: Request) -> Response:
    """Return what a handler answers; it reads the body as far as it wants to."""
    body = Body(request)
    limiter = None if request.method in {"GET", "HEAD"} else _senders()
    try:
        return await anyio.to_thread.run_sync(answer, request, body, limiter=limiter)
    except errors.HubError:
        await body.discard()
        raise


def _senders() -> anyio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(SENDERS)
        _LIMITER.set(limiter)
        return limiter
