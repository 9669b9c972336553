"""How fast a queue moves: what an honest Retry-After is reckoned from."""

_NEWEST = 1 / 8
"""What one reading counts in a running mean."""


class Mean:
    """A running mean of durations in seconds, in which newer ones count more."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, seconds: float) -> None:
        """Take one duration."""
        self.value = (
            seconds if self.value is None else self.value + _NEWEST * (seconds - self.value)
        )


class Pace:
    """The time between two that are let in while more wait."""

    def __init__(self) -> None:
        self._between = Mean()
        self._last: float | None = None

    def start(self, now: float) -> None:
        """Begin to measure: the first one waits, and what earlier queues told holds no more."""
        self._between = Mean()
        self._last = now

    def let_in(self, now: float) -> None:
        """Count one of those who waited."""
        if self._last is not None:
            self._between.add(now - self._last)
        self._last = now

    def stop(self) -> None:
        """End measuring: nobody waits any more."""
        self._last = None

    def seconds(self, turns: float, now: float, usual: float) -> float:
        """Return how long so many turns take from now on.

        `usual` is the time of one turn where this queue has not told yet: what a place is held for,
        by how many there are. A queue that stands still is believed once nobody was let in for
        three turns' time.
        """
        if self._last is None:
            return turns * usual
        since = now - self._last
        one = max(usual if self._between.value is None else self._between.value, since / 3)
        return max(turns * one - since, (turns - 1) * one)
