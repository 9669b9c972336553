"""Noticing that a stream stands still, without a timer for each of its parts."""

import asyncio
from collections.abc import Callable

_LOOKS = 4.0
_LONGEST_LOOK_SECONDS = 1.0


class Pulse:
    """Interrupts a timeout block when no beat came for as long as `patience` says.

    `patience` is asked at each look, in seconds: what is waited for changes. A stop is noticed
    within a quarter of the shortest patience, or a second.
    """

    def __init__(
        self, interrupt: asyncio.Timeout, patience: Callable[[], float], shortest: float
    ) -> None:
        self._interrupt = interrupt
        self._patience = patience
        self._every = min(_LONGEST_LOOK_SECONDS, shortest / _LOOKS)
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(self._every, self._look)

    def beat(self) -> None:
        """Note that it goes on."""
        self._last = self._loop.time()

    def excuse(self, since: float) -> None:
        """Leave out the time from a moment of the loop's clock until now: nobody was looking."""
        self._last += self._loop.time() - since

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._last >= self._patience():
            self._interrupt.reschedule(now)
        else:
            self._timer = self._loop.call_later(self._every, self._look)
