"""Watching the client: work for somebody who has gone away is stopped."""

import asyncio
from collections.abc import Coroutine
from enum import Enum

from starlette.types import Receive


class Ended(Enum):
    """Why work ended."""

    DONE = "done"
    CLIENT_GONE = "client gone"
    STOPPED = "stopped"


class Inflight:
    """The requests in progress, each of which can be told to stop."""

    def __init__(self) -> None:
        self._stops: dict[str, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._stops)

    def stop_all(self) -> None:
        """Tell every request to stop."""
        for stop in self._stops.values():
            stop.set()

    async def run(
        self, request_id: str, receive: Receive, work: Coroutine[None, None, None]
    ) -> Ended:
        """Do the work until it is done, the client is gone, or it is told to stop.

        `receive` must have yielded the whole body. Work that is ended early is cancelled and has
        cleaned up when this returns; what it raises is raised here.
        """
        stop = self._stops[request_id] = asyncio.Event()
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(receive))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({working, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return Ended.DONE
            return Ended.CLIENT_GONE if gone.done() else Ended.STOPPED
        finally:
            del self._stops[request_id]
            for task in (working, gone, stopped):
                task.cancel()
            await asyncio.gather(working, gone, stopped, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
