"""Handlers run in threads, so that one that waits for the disk or a lock keeps up no other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.bodies import Body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response

# Those who send bodies wait for one another, never those who read.
SENDERS: Final = 64
OF_ONE_CALLER: Final = 16  # of them; the others of that caller wait without a thread
WITHOUT_A_CALLER: Final = 48  # of them, all signed addresses together
ANYBODIES: Final = 4  # at once, of those who need no token
MOST_OF_ANYBODY: Final = 1 << 20  # bytes
# One for each event loop.
_FOR_SENDERS: Final = RunVar[anyio.CapacityLimiter]("senders")
_FOR_CALLERS: Final = RunVar[dict[str, anyio.CapacityLimiter]]("callers")
_FOR_ANYBODY: Final = RunVar[anyio.CapacityLimiter]("anybodies")


async def in_thread(answer: Callable[[Request, Body], Response], request: Request) -> Response:
    """Return what a handler answers; it reads the body as far as it wants to."""
    body = Body(request)
    try:
        if request.method in {"GET", "HEAD"}:
            return await anyio.to_thread.run_sync(answer, request, body)
        async with _turn_of(request.headers.get("authorization", "")):
            limiter = _limiter(_FOR_SENDERS, SENDERS)
            return await anyio.to_thread.run_sync(answer, request, body, limiter=limiter)
    except errors.HubError:
        await body.discard()
        raise


@asynccontextmanager
async def _turn_of(caller: str) -> AsyncIterator[None]:
    """Wait until the caller has not too many on their way: slow senders keep up nobody else."""
    try:
        turns = _FOR_CALLERS.get()
    except LookupError:
        turns = {}
        _FOR_CALLERS.set(turns)
    most = OF_ONE_CALLER if caller else WITHOUT_A_CALLER
    turn = turns.setdefault(caller, anyio.CapacityLimiter(most))
    try:
        async with turn:
            yield
    finally:
        statistics = turn.statistics()
        if not statistics.borrowed_tokens and not statistics.tasks_waiting:
            turns.pop(caller, None)


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
