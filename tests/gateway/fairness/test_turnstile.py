"""The turnstile alone, on a clock of its own: who gets in, when, and what is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_gateway.fairness.lanes import Lane
from holdfast_gateway.fairness.turnstile import (
    OverloadedError,
    Place,
    Size,
    Team,
    Turnstile,
    size_of,
)

SHORT, LONG = Lane.SHORT, Lane.LONG


class Clock:
    """Seconds that pass only when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def size(slots: int = 8, **more: float) -> Size:
    return size_of(
        slots=slots,
        starting=int(more.get("starting", 64)),
        share=more.get("share", 0.125),
        ageing_seconds=more.get("ageing_seconds", 10),
        queue_seconds=(more.get("short_queue_seconds", 30), more.get("queue_seconds", 30)),
        queue_length=int(more.get("queue_length", 1000)),
    )


@dataclass
class Bench:
    """A turnstile and those who came to it."""

    limits: Size = field(default_factory=size)
    clock: Clock = field(default_factory=Clock)
    teams: dict[str, Team] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turnstile = Turnstile(self.limits, self.clock)

    def team(self, name: str = "a") -> Team:
        return self.teams.setdefault(name, Team(name))

    def come(
        self, lane: Lane, team: str = "a", *, seats: int = 1, cost: float = 10, stream: bool = False
    ) -> asyncio.Task[Place]:
        return asyncio.ensure_future(
            self.turnstile.enter(self.team(team), lane, cost=cost, seats=seats, stream=stream)
        )

    @property
    def empty(self) -> bool:
        lanes = self.turnstile.traffic
        nobody = all(lane.in_flight == lane.queued == 0 for lane in lanes)
        return nobody and all(team.in_flight == 0 for team in self.teams.values())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_eight_long_ones_leave_room_for_a_short_one() -> None:
    bench = Bench()
    long = [bench.come(LONG) for _ in range(8)]
    await settle()
    assert sum(task.done() for task in long) == 7
    short = bench.come(SHORT)
    await settle()
    assert short.done()
    assert short.result().waited_seconds == 0
    another = bench.come(SHORT)  # all eight slots are taken: it waits, and is then the first
    await settle()
    assert not another.done()
    bench.clock.now = 2
    long[0].result().leave()
    await settle()
    assert another.done()
    assert not long[7].done()
    assert another.result().waited_seconds == 2


async def test_a_short_one_passes_nobody_who_has_waited_long() -> None:
    bench = Bench(size(1, ageing_seconds=10))
    first = await bench.come(LONG)
    long = bench.come(LONG)
    await settle()
    bench.clock.now = 9
    short = [bench.come(SHORT) for _ in range(3)]
    await settle()
    first.leave()
    await settle()
    assert short[0].done()
    assert not long.done()
    bench.clock.now = 11
    short[0].result().leave()
    await settle()
    assert long.done()
    assert not short[1].done()


async def test_short_ones_without_end_do_not_starve_a_long_one() -> None:
    bench = Bench(size(4, ageing_seconds=10, short_queue_seconds=1000))
    short = [bench.come(SHORT) for _ in range(8)]
    long = bench.come(LONG)
    while not long.done():
        await settle()
        inside = [task for task in short if task.done() and not task.result().left]
        assert len(inside) == 4
        inside[0].result().leave()
        short.append(bench.come(SHORT))
        bench.clock.now += 1
        assert bench.clock.now < 20
        await settle()
    assert 10 <= bench.clock.now <= 12


async def test_what_is_kept_for_short_ones_is_theirs_whoever_waits() -> None:
    bench = Bench(size(8, ageing_seconds=10, queue_seconds=1000))
    for _ in range(3):
        bench.come(LONG, seats=4)
    await settle()
    bench.clock.now = 500
    assert (await bench.come(SHORT)).waited_seconds == 0


async def test_what_a_team_took_while_there_was_room_counts_when_there_is_none() -> None:
    bench = Bench(size(4, share=0))
    places = [await bench.come(LONG, "first") for _ in range(4)]
    mine, theirs = bench.come(LONG, "first"), bench.come(LONG, "second")
    await settle()
    places[0].leave()
    await settle()
    assert (mine.done(), theirs.done()) == (False, True)


async def test_who_gives_up_lets_those_behind_pass() -> None:
    bench = Bench(size(4, share=0))
    await bench.come(LONG, seats=3)
    large, small = bench.come(LONG, seats=4), bench.come(LONG)
    await settle()
    assert not small.done()  # it does not overtake: the large one would never get in
    large.cancel()
    await settle()
    assert small.done()


async def test_a_flood_of_one_team_does_not_hold_up_another() -> None:
    bench = Bench(size(4, share=0))
    flood = [bench.come(LONG, "flood") for _ in range(100)]
    await settle()
    theirs = [bench.come(LONG, "quiet") for _ in range(3)]
    await settle()
    order: list[str] = []
    for _ in range(8):
        inside = [task for task in (*flood, *theirs) if task.done() and not task.result().left]
        before = {id(task) for task in inside}
        inside[0].result().leave()
        await settle()
        order += [
            task.result().team.name
            for task in (*flood, *theirs)
            if task.done() and not task.result().left and id(task) not in before
        ]
    assert order[:6].count("quiet") >= 2
    assert "quiet" in order[:2]


@pytest.mark.parametrize(("heavy", "share"), [(1, 0.5), (3, 0.75)])
async def test_weights_are_what_teams_get_of_a_full_pool(heavy: float, share: float) -> None:
    bench = Bench(size(4, share=0))
    bench.teams["a"] = Team("a", weight=heavy)
    waiting = [bench.come(LONG, name) for _ in range(100) for name in ("a", "b")]
    await settle()
    served: Counter[str] = Counter()
    for _ in range(100):
        inside = [task for task in waiting if task.done()]
        waiting = [task for task in waiting if not task.done()]
        for task in inside:
            served[task.result().team.name] += 1
            task.result().leave()
        await settle()
        if served.total() >= 80:
            break
    assert abs(served["a"] / served.total() - share) < 0.06


async def test_a_team_at_its_cap_waits_and_the_others_do_not() -> None:
    bench = Bench()
    bench.teams["a"] = Team("a", cap=2)
    mine = [bench.come(LONG, "a") for _ in range(4)]
    theirs = [bench.come(LONG, "b") for _ in range(3)]
    await settle()
    assert [task.done() for task in mine] == [True, True, False, False]
    assert all(task.done() for task in theirs)
    mine[0].result().leave()
    await settle()
    assert [task.done() for task in mine] == [True, True, True, False]


async def test_a_cap_holds_over_all_pools() -> None:
    one, clock = Bench(), Clock()
    other = Turnstile(size(), clock)
    team = one.teams["a"] = Team("a", cap=1)
    first = await one.come(LONG)
    there = asyncio.ensure_future(other.enter(team, SHORT, cost=1, seats=1, stream=False))
    await settle()
    assert not there.done()
    first.leave()
    await settle()
    assert there.done()


async def test_streams_that_wait_for_their_first_token_are_bounded() -> None:
    bench = Bench(size(1000, starting=8))
    streams = [bench.come(LONG, stream=True) for _ in range(20)]
    whole = [bench.come(LONG) for _ in range(1)]
    await settle()
    assert sum(task.done() for task in streams) == 7
    short = [bench.come(SHORT, stream=True) for _ in range(2)]
    await settle()
    assert [task.done() for task in short] == [True, False]
    short[0].result().answered()
    await settle()
    assert short[1].done()
    assert not whole[0].done()  # in turn behind the streams of its lane
    streams[0].result().answered()
    streams[0].result().answered()
    await settle()
    assert sum(task.done() for task in streams) == 8


async def test_who_would_wait_too_long_is_refused_at_once_and_told_how_long() -> None:
    bench = Bench(size(2, share=0, queue_seconds=10))
    for _ in range(4):  # answers take 8 s
        places = [await bench.come(LONG) for _ in range(2)]
        bench.clock.now += 8
        for place in places:
            place.leave()
    inside = [await bench.come(LONG) for _ in range(2)]
    queued = [bench.come(LONG) for _ in range(2)]
    await settle()
    with pytest.raises(OverloadedError) as refusal:
        await bench.come(LONG)
    assert refusal.value.seconds == pytest.approx(12, abs=2)  # the third of a turn every 4 s
    assert bench.turnstile.traffic[LONG].shed == 1
    for place in inside:
        place.leave()
    await settle()
    assert all(task.done() for task in queued)


async def test_a_full_queue_refuses() -> None:
    bench = Bench(size(1, queue_length=2))
    await bench.come(LONG)
    waiting = [bench.come(LONG) for _ in range(2)]
    await settle()
    with pytest.raises(OverloadedError):
        await bench.come(LONG)
    for task in waiting:
        task.cancel()


async def test_nobody_waits_longer_than_promised() -> None:
    bench = Bench(size(1, queue_seconds=0.05))
    place = await bench.come(LONG)
    with pytest.raises(OverloadedError):
        await bench.come(LONG)
    place.leave()
    assert bench.empty


async def test_who_goes_away_leaves_nothing_behind() -> None:
    bench = Bench(size(1))
    place = await bench.come(LONG)
    waiting = [bench.come(LONG) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    place.leave()  # before the one that was called off has run
    waiting[1].cancel()  # its turn has just come
    await settle()
    assert waiting[2].done()
    waiting[2].result().leave()
    assert bench.empty


async def test_a_request_larger_than_the_pool_still_gets_in() -> None:
    bench = Bench(size(8))
    bench.teams["a"] = Team("a", cap=4)
    one = await bench.come(LONG, seats=100)
    one.leave()
    one.leave()
    assert bench.empty


Step = tuple[str, int]


@settings(max_examples=150, deadline=None)
@given(
    slots=st.integers(1, 9),
    starting=st.integers(1, 9),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["short", "long", "stream", "leave", "first", "cancel", "tick"]),
            st.integers(0, 1000),
        ),
        max_size=60,
    ),
)
def test_never_above_capacity_and_never_idle_while_somebody_waits(
    slots: int, starting: int, steps: list[Step]
) -> None:
    asyncio.run(_drive(slots, starting, steps))


async def _drive(slots: int, starting: int, steps: list[Step]) -> None:
    bench = Bench(size(slots, starting=starting, queue_seconds=1e6, short_queue_seconds=1e6))
    bench.teams["capped"] = Team("capped", cap=2)
    tasks: list[asyncio.Task[Place]] = []
    for step, number in steps:
        await _step(bench, tasks, step, number)
        await settle()
        there = _inside(tasks)
        assert sum(place.seats for place in there) <= slots
        assert sum(place.starting for place in there) <= starting
        long = sum(place.seats for place in there if place.lane is LONG)
        assert long <= slots - bench.limits.reserved_slots
        capped = [place for place in there if place.team.name == "capped"]
        assert len(capped) <= 1 or sum(place.seats for place in capped) <= 2
        if not there:
            assert all(task.done() for task in tasks)  # nobody waits in front of an empty pool
    for task in tasks:
        task.cancel()
    await settle()
    for place in _inside(tasks):
        place.leave()
    await settle()
    assert bench.empty


def _inside(tasks: list[asyncio.Task[Place]]) -> list[Place]:
    done = [task.result() for task in tasks if task.done() and not task.cancelled()]
    return [place for place in done if not place.left]


async def _step(bench: Bench, tasks: list[asyncio.Task[Place]], step: str, number: int) -> None:
    if step == "tick":
        bench.clock.now += number / 100
    elif step in {"short", "long", "stream"}:
        team = ("a", "b", "capped")[number % 3]
        lane = SHORT if step == "short" else LONG
        seats = 1 + number % 4
        tasks.append(bench.come(lane, team, seats=seats, cost=number + 1, stream=step == "stream"))
    elif step == "cancel" and tasks:
        tasks[number % len(tasks)].cancel()
    elif there := _inside(tasks):
        place = there[number % len(there)]
        place.leave() if step == "leave" else place.answered()


def test_a_place_that_is_free_costs_little() -> None:
    """Not a benchmark: it fails when the way in has become another order of magnitude."""
    bench = Bench(size(1024))
    team = bench.team()

    async def measure(rounds: int) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(rounds):
            place = await bench.turnstile.enter(team, SHORT, cost=10, seats=1, stream=True)
            place.answered()
            place.leave()
        return (loop.time() - began) / rounds

    assert min(asyncio.run(measure(2000)) for _ in range(5)) < 50e-6


async def test_a_team_that_fills_the_waiting_room_makes_way() -> None:
    bench = Bench(size(8, queue_length=6))
    inside = [bench.come(LONG, "flood") for _ in range(7)]
    await settle()
    flood = [bench.come(LONG, "flood") for _ in range(8)]
    await settle()
    assert [each.done() for each in flood] == [False] * 6 + [True] * 2
    flood[5].cancel()  # called off, and has not run when another one looks
    others = [bench.come(LONG, "other") for _ in range(4)]
    await settle()
    # Three each: the fourth of the others would only take another's turn.
    assert [each.done() for each in flood] == [False] * 3 + [True] * 5
    assert [each.done() for each in others] == [False] * 3 + [True]
    for each in (flood[4], others[3]):
        assert isinstance(each.exception(), OverloadedError)
    for each in inside:
        (await each).leave()
    for each in (*flood[:3], *others[:3]):
        (await each).leave()
    assert bench.empty
    for each in (*flood[6:], flood[3]):
        assert isinstance(each.exception(), OverloadedError)
