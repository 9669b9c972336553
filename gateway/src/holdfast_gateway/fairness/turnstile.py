"""The turnstile in front of one model in one pool: at once, in turn, or not now."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast_gateway.fairness.fair_queue import FairQueue
from holdfast_gateway.fairness.lanes import Lane
from holdfast_gateway.fairness.pace import Mean, Pace


class OverloadedError(Exception):
    """There is no place now. `seconds` is when one can be expected."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no place for {seconds:.1f} s")
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Team:
    """A team's weight, its cap, and what it has in progress in all pools.

    `parked` are the turnstiles in which it waits because of its cap.
    """

    name: str
    weight: float = 1.0
    cap: int | None = None
    in_flight: int = 0
    parked: "dict[Turnstile, None]" = field(default_factory=dict)

    def may_take(self, seats: int) -> bool:
        """Say whether so many more are within the cap; one request alone always is."""
        return self.cap is None or self.in_flight == 0 or self.in_flight + seats <= self.cap


@dataclass(frozen=True, slots=True)
class Size:
    """What a turnstile lets in: sequences at once, and streams that wait for their first token.

    Long requests leave the reserves of both to short ones. Seconds are the longest waits by lane.
    """

    slots: int
    starting: int
    reserved_slots: int
    reserved_starting: int
    ageing_seconds: float
    queue_seconds: tuple[float, float]
    queue_length: int


@dataclass(slots=True)
class Traffic:
    """What one lane of a turnstile holds, and what it refused since the start."""

    in_flight: int = 0
    queued: int = 0
    admitted: int = 0
    shed: int = 0


class Place:
    """A request's place among those being served; leave it when the answer has ended."""

    __slots__ = ("_turnstile", "arrived", "entered", "lane", "left", "seats", "starting", "team")

    def __init__(  # noqa: PLR0913  # what the turnstile counts by
        self,
        turnstile: "Turnstile",
        team: Team,
        lane: Lane,
        seats: int,
        arrived: float,
        *,
        stream: bool,
    ) -> None:
        self._turnstile = turnstile
        self.team = team
        self.lane = lane
        self.seats = seats
        self.arrived = self.entered = arrived
        self.starting = stream
        self.left = False

    @property
    def waited_seconds(self) -> float:
        """How long the request waited for this place."""
        return self.entered - self.arrived

    def answered(self) -> None:
        """Note that the first token is there; only the first call counts."""
        if self.starting and not self.left:
            self._turnstile.answered(self)

    def leave(self) -> None:
        """Give the place up; the first call counts."""
        if not self.left:
            self._turnstile.leave(self)


class Turnstile:
    """Counts who is in, keeps who waits, and lets in who is next. Belongs to one event loop."""

    def __init__(self, size: Size, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._seats = [0, 0]
        self._starting = [0, 0]
        self._queues: tuple[FairQueue[_Waiter], FairQueue[_Waiter]] = (FairQueue(), FairQueue())
        self._paces = (Pace(), Pace())
        self._held = (Mean(), Mean())
        self.traffic = (Traffic(), Traffic())

    async def enter(
        self, team: Team, lane: Lane, *, cost: float, seats: int, stream: bool
    ) -> Place:
        """Return a place, at once if there is one; raise OverloadedError if it would take long."""
        size = self._size
        limit = size.slots if lane is Lane.SHORT else size.slots - size.reserved_slots
        place = Place(self, team, lane, min(seats, limit), self._clock(), stream=stream)
        if (
            self._fits(place)
            and team.may_take(place.seats)
            and self not in team.parked
            and self._head(lane) is None
            and self._no_elder(lane)
        ):
            self._queues[lane].charge(team.name, team.weight, cost)
            self._take(place)
            return place
        return await self._wait(place, cost)

    async def _wait(self, place: Place, cost: float) -> Place:
        team, lane = place.team, place.lane
        queue, patience = self._queues[lane], self._size.queue_seconds[lane]
        expected = self._expected_seconds(team, lane)
        if expected > patience or not self._has_room(team, lane):
            self.traffic[lane].shed += 1
            raise OverloadedError(expected)
        waiter = _Waiter(place, asyncio.get_running_loop().create_future())
        if not queue:
            self._paces[lane].start(place.arrived)
        queue.push(team.name, team.weight, cost, waiter)
        self.traffic[lane].queued += 1
        self._let_in()
        try:
            async with asyncio.timeout(patience):
                await waiter.turn
        except BaseException as error:
            if waiter.waits:
                self._drop(waiter)
                self._let_in()  # it may have been the one all others waited behind
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                place.leave()  # it was our turn, and just then we were called off
            if isinstance(error, TimeoutError):
                self.traffic[lane].shed += 1
                raise OverloadedError(self._expected_seconds(team, lane)) from error
            raise
        return place

    def _has_room(self, team: Team, lane: Lane) -> bool:
        """Say whether one more may wait; of a team that fills the room the last one makes way."""
        queue = self._queues[lane]
        if len(queue) < self._size.queue_length:
            return True
        found = queue.longest()
        if found is None or queue.waiting(found[0]) <= queue.waiting(team.name) + 1:
            return False
        waiter = found[1]
        self._drop(waiter)
        if not waiter.turn.done():  # called off, and has not run since
            self.traffic[lane].shed += 1
            expected = self._expected_seconds(waiter.place.team, lane)
            waiter.turn.set_exception(OverloadedError(expected))
        return True

    def _drop(self, waiter: "_Waiter") -> None:
        """Take somebody out of the queue who waits no longer."""
        waiter.waits = False
        place = waiter.place
        queue = self._queues[place.lane]
        queue.remove(place.team.name, waiter)
        self.traffic[place.lane].queued -= 1
        if not queue:
            self._paces[place.lane].stop()

    def answered(self, place: Place) -> None:
        """Free a place among those that wait for their first token."""
        place.starting = False
        self._starting[place.lane] -= 1
        self._let_in()

    def leave(self, place: Place) -> None:
        """Free a place."""
        place.left = True
        if place.starting:
            self._starting[place.lane] -= 1
        self._seats[place.lane] -= place.seats
        self._held[place.lane].add(self._clock() - place.entered)
        self.traffic[place.lane].in_flight -= 1
        team = place.team
        team.in_flight -= place.seats
        if team.parked:
            parked, team.parked = team.parked, {}
            for turnstile in parked:
                turnstile.welcome(team)
        self._let_in()

    def welcome(self, team: Team) -> None:
        """Let a team take part again that was at its cap."""
        for queue in self._queues:
            queue.unpark(team.name)
        self._let_in()

    def _fits(self, place: Place) -> bool:
        size, seats, starting = self._size, self._seats, self._starting
        if seats[0] + seats[1] + place.seats > size.slots:
            return False
        if place.starting and starting[0] + starting[1] >= size.starting:
            return False
        return place.lane is Lane.SHORT or (
            seats[1] + place.seats <= size.slots - size.reserved_slots
            and (not place.starting or starting[1] < size.starting - size.reserved_starting)
        )

    def _no_elder(self, lane: Lane) -> bool:
        """Whether no long request has waited so long that it goes before a short one.

        Short ones keep what is reserved for them, whoever waits.
        """
        if lane is Lane.LONG or self._seats[Lane.SHORT] < self._size.reserved_slots:
            return True
        head = self._head(Lane.LONG)
        return head is None or self._clock() - head.place.arrived < self._size.ageing_seconds

    def _head(self, lane: Lane) -> "_Waiter | None":
        """Return who is next in a lane; teams at their cap are passed over."""
        queue = self._queues[lane]
        while (found := queue.peek()) is not None:
            name, waiter = found
            if waiter.turn.cancelled():  # it was called off and has not run since
                self._drop(waiter)
                continue
            if waiter.place.team.may_take(waiter.place.seats):
                return waiter
            queue.park(name)
            waiter.place.team.parked[self] = None
        return None

    def _let_in(self) -> None:
        """Let in whoever is next, for as long as somebody is."""
        while self._queues[0] or self._queues[1]:
            short, long = self._head(Lane.SHORT), self._head(Lane.LONG)
            if short is not None and self._no_elder(Lane.SHORT) and self._fits(short.place):
                self._turn(short)
            elif long is not None and self._fits(long.place):
                self._turn(long)
            else:
                return

    def _turn(self, waiter: "_Waiter") -> None:
        waiter.waits = False
        place = waiter.place
        queue, pace = self._queues[place.lane], self._paces[place.lane]
        queue.pop()
        place.entered = self._clock()
        pace.let_in(place.entered)
        if not queue:
            pace.stop()
        self.traffic[place.lane].queued -= 1
        self._take(place)
        waiter.turn.set_result(None)

    def _take(self, place: Place) -> None:
        lane = place.lane
        self._seats[lane] += place.seats
        if place.starting:
            self._starting[lane] += 1
        place.team.in_flight += place.seats
        traffic = self.traffic[lane]
        traffic.in_flight += 1
        traffic.admitted += 1

    def _expected_seconds(self, team: Team, lane: Lane) -> float:
        """Return how long a request that comes now would wait: zero where nothing is known yet."""
        # As many end in a second as there are by the seconds that one takes. Where none of this
        # lane is in, one of the other must end first.
        by = lane if self._seats[lane] else Lane(1 - lane)
        usual = (self._held[by].value or 0.0) / max(1, self._seats[by])
        turns = self._queues[lane].turns_before(team.name, team.weight)
        return self._paces[lane].seconds(turns, self._clock(), usual)


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits for a turn."""

    place: Place
    turn: "asyncio.Future[None]"
    waits: bool = True


def size_of(  # noqa: PLR0913  # an operator's settings, as they come
    *,
    slots: int,
    starting: int,
    share: float,
    ageing_seconds: float,
    queue_seconds: tuple[float, float],
    queue_length: int,
) -> Size:
    """Return the size of a turnstile; of two slots or more, at least one is kept for short ones."""

    def kept(of: int) -> int:
        return 0 if of < 2 or not share else max(1, min(math.floor(of * share), of - 1))

    return Size(
        slots=slots,
        starting=starting,
        reserved_slots=kept(slots),
        reserved_starting=kept(starting),
        ageing_seconds=ageing_seconds,
        queue_seconds=queue_seconds,
        queue_length=queue_length,
    )
