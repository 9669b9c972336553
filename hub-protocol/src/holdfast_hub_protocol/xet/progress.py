"""An answer that says how far the work is while it goes on, one line of JSON at a time."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.responses import Response

from holdfast_hub_protocol.errors import HubError, disk_full, is_disk_full
from holdfast_hub_protocol.xet.errors import XetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

_LOG: Final = logging.getLogger(__name__)
# Well below the time after which proxies give up on a silent server.
_SECONDS: Final = 2.0
_AT_ONCE: Final = 32
_LIMITER: Final = RunVar[anyio.CapacityLimiter]("xet shards")


class StoppedError(Exception):
    """The client has gone; what it waited for was given up."""


class ProgressResponse(Response):
    """Runs `work` in a thread and sends lines until it ends, the last one with how it ended.

    `stop` is called when the client goes away; `so_far` returns what is done, and of how much.
    """

    media_type = "application/x-ndjson"

    def __init__(
        self,
        work: Callable[[], None],
        stop: Callable[[], None],
        so_far: Callable[[], tuple[int, int]],
    ) -> None:
        super().__init__(None, 200, {"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._work = work
        self._stop = stop
        self._so_far = so_far

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the lines."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last: dict[str, Any] = {}
        done = anyio.Event()

        async def work() -> None:
            last.update(await anyio.to_thread.run_sync(_outcome, self._work, limiter=_limiter()))
            done.set()

        async def leave_with_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._stop()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(leave_with_client)
            while not done.is_set():
                with anyio.move_on_after(_SECONDS):
                    await done.wait()
                if not done.is_set():
                    verified, total = self._so_far()
                    line = {"type": "validating", "verified": verified, "total": total}
                    await _send(send, line, more=True)
            await _send(send, last, more=False)
            group.cancel_scope.cancel()


def _outcome(work: Callable[[], None]) -> dict[str, Any]:
    try:
        work()
    except StoppedError:
        return _failure("given up")
    except (XetError, HubError) as error:
        return _failure(str(error))
    except Exception as error:  # noqa: BLE001 - it is answered, and logged
        if isinstance(error, OSError) and is_disk_full(error):
            return _failure(disk_full().message)
        # The answer has begun: nobody further out can turn this into a status.
        _LOG.exception("a shard could not be taken in")
        return {**_failure("Internal error; the registry's log has more"), "retryable": True}
    return {"type": "result"}


def _failure(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message, "retryable": False}


async def _send(send: Send, line: dict[str, Any], *, more: bool) -> None:
    body = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _limiter() -> anyio.CapacityLimiter:
    try:
        return _LIMITER.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_AT_ONCE)
        _LIMITER.set(limiter)
        return limiter
