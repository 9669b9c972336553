"""Start-time fair queueing: teams take turns by what they were given already, by weight."""

import heapq
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class _Line(Generic[Item]):
    """One team's items, first come first served, and the virtual time it has used up."""

    __slots__ = ("finish", "items", "parked", "ticket", "weight")

    def __init__(self, weight: float) -> None:
        self.items: OrderedDict[Item, float] = OrderedDict()
        self.finish = 0.0
        self.weight = weight
        self.parked = False
        self.ticket = -1


class FairQueue(Generic[Item]):
    """Items of several teams. O(log teams) to add and to take, O(1) to remove.

    A team's next item starts where its last one ended, or now if it was idle; the earliest start
    is next. So a team gets its weight's part of what is given, in whatever order teams come, and
    saves up nothing while it asks for nothing.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Line[Item]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._now = 0.0
        self._tickets = 0
        self._length = 0
        self._contending = 0.0  # weights of the teams in the heap

    def __len__(self) -> int:
        return self._length

    def charge(self, team: str, weight: float, cost: float) -> None:
        """Count what was given past the queue, because nobody waited."""
        line = self._line(team, weight)
        self._now = max(self._now, line.finish)
        line.finish = self._now + cost / line.weight

    def push(self, team: str, weight: float, cost: float, item: Item) -> None:
        """Add an item to the end of its team's line."""
        line = self._line(team, weight)
        line.items[item] = cost
        self._length += 1
        if len(line.items) == 1 and not line.parked:
            self._contending += line.weight
            self._enter(team, line)

    def peek(self) -> tuple[str, Item] | None:
        """Return the team and the item that are next."""
        while self._heap:
            _, ticket, team = self._heap[0]
            line = self._lines[team]
            if line.ticket == ticket:
                return team, next(iter(line.items))
            heapq.heappop(self._heap)
        return None

    def pop(self) -> Item:
        """Take what `peek` returned."""
        start, _, team = heapq.heappop(self._heap)
        line = self._lines[team]
        item, cost = line.items.popitem(last=False)
        self._length -= 1
        self._now = max(self._now, start)
        line.finish = self._now + cost / line.weight
        line.ticket = -1
        if line.items:
            self._enter(team, line)
        else:
            self._contending -= line.weight
        return item

    def remove(self, team: str, item: Item) -> None:
        """Take out an item that waits no longer."""
        line = self._lines[team]
        del line.items[item]
        self._length -= 1
        if not line.items and not line.parked:
            line.ticket = -1
            self._contending -= line.weight

    def park(self, team: str) -> None:
        """Pass a team over until it is unparked."""
        line = self._lines[team]
        line.parked = True
        line.ticket = -1
        self._contending -= line.weight

    def unpark(self, team: str) -> None:
        """Let a team take part again."""
        line = self._lines.get(team)
        if line is not None and line.parked:
            line.parked = False
            if line.items:
                self._contending += line.weight
                self._enter(team, line)

    def turns_before(self, team: str, weight: float) -> float:
        """Return how many items are taken, about, until one that the team adds now is."""
        mine = self._lines.get(team)
        waiting = 0 if mine is None else len(mine.items)
        together = self._contending + (0.0 if waiting else weight)
        return min(self._length + 1.0, (waiting + 1) * together / weight)

    def waiting(self, team: str) -> int:
        """Return how many of a team's wait."""
        line = self._lines.get(team)
        return 0 if line is None else len(line.items)

    def longest(self) -> tuple[str, Item] | None:
        """Return the team of which most wait, and its last item; None where nobody does."""
        team, line = max(
            self._lines.items(), key=lambda each: len(each[1].items), default=("", None)
        )
        return None if line is None or not line.items else (team, next(reversed(line.items)))

    def _line(self, team: str, weight: float) -> _Line[Item]:
        line = self._lines.get(team)
        if line is None:
            line = self._lines[team] = _Line(weight)
        return line

    def _enter(self, team: str, line: _Line[Item]) -> None:
        if line.items and not line.parked and line.ticket < 0:
            self._tickets += 1
            line.ticket = self._tickets
            start = max(self._now, line.finish)
            heapq.heappush(self._heap, (start, line.ticket, team))
