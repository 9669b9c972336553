"""Watching the client and the switches: work that nobody wants, or may have, is stopped."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum

from starlette.types import Receive

from holdfast_gateway.api.errors import ApiError, unavailable
from holdfast_gateway.question import Question


class Ended(Enum):
    """Why work ended."""

    DONE = "done"
    CLIENT_GONE = "client gone"


@dataclass(eq=False, slots=True)
class Running:
    """A request in progress. `proven` is the number of changes up to which its rights are sure."""

    question: Question
    proven: int | None = None
    error: ApiError | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, error: ApiError) -> None:
        """Have it end with this error; the first call counts. Call from the event loop."""
        if self.error is None:
            self.error = error
            self._stop.set()

    async def stopped(self) -> ApiError | None:
        """Wait until it is told to stop."""
        await self._stop.wait()
        return self.error


class Inflight:
    """The requests in progress, each of which can be told to stop."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def all(self) -> tuple[Running, ...]:
        """Return them as they are at this moment; safe in any thread (one step, under the GIL)."""
        return tuple(self._running.values())

    def stop_all(self, error: ApiError | None = None) -> None:
        """Tell every request to stop; by default because the gateway does."""
        error = error or unavailable("The gateway is being stopped. Ask again.")
        for running in self.all:
            running.stop(error)

    async def run(
        self, question: Question, receive: Receive, work: Coroutine[None, None, None]
    ) -> Ended | ApiError:
        """Do the work until it is done, the client is gone, or it is told to stop with an error.

        `receive` must have yielded the whole body. Work that is ended early is cancelled and has
        cleaned up when this returns; what it raises is raised here.
        """
        running = self._running[question.request_id] = Running(question)
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(receive))
        stopped = asyncio.ensure_future(running.stopped())
        try:
            await asyncio.wait({working, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return Ended.DONE
            return running.error or Ended.CLIENT_GONE
        finally:
            del self._running[question.request_id]
            for task in (working, gone, stopped):
                task.cancel()
            await asyncio.gather(working, gone, stopped, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
