"""Leaving without breaking an answer: the edge hears of it first, then the door closes.

1. `leave_seconds`: the health check says no and every answer closes its connection, while new
   requests are still served. The edge takes this gateway out meanwhile, so that no connection is on
   its way to a door that closes.
2. The listener is closed; running answers go on for `drain_seconds`.
3. Those that still run are told, and end with an error event.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Running(Protocol):
    """What is being answered."""

    def stop_all(self) -> None:
        """Tell all of it to end."""


class Drain:
    """Where a gateway stands between serving and its end."""

    def __init__(self) -> None:
        self.leaving = False

    def begin(
        self,
        running: Running,
        close_door: Callable[[], None],
        *,
        leave_seconds: float,
        drain_seconds: float,
    ) -> None:
        """Leave; asked again, end what still runs at once.

        `close_door` stops the listener. Call from the event loop.
        """
        if self.leaving:
            running.stop_all()
            return
        self.leaving = True
        loop = asyncio.get_running_loop()

        def close() -> None:
            close_door()
            loop.call_later(drain_seconds, running.stop_all)

        if leave_seconds:
            loop.call_later(leave_seconds, close)
        else:
            close()
