"""Time for judging tokens: setting the machine's clock back gives none of them a longer life."""

from __future__ import annotations

import time


class Clock:
    """The machine's clock, or what it said at the start and the seconds since, if that is later."""

    def __init__(self) -> None:
        self._started = time.time()
        self._running = time.monotonic()

    def now(self) -> float:
        """Return Unix seconds that never go back while this object lives.

        A clock that was set ahead and mended again leaves no trace; one that was wrong at the
        start is believed until then.
        """
        return max(time.time(), self._started + time.monotonic() - self._running)
