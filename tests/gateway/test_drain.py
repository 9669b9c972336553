"""The steps of leaving, in their order."""

from __future__ import annotations

import asyncio

from holdfast_gateway.drain import Drain


class Running:
    """Stands for the requests in flight."""

    def __init__(self) -> None:
        self.told = 0

    def stop_all(self) -> None:
        self.told += 1


async def test_the_door_closes_after_a_while_and_what_runs_is_told_after_another() -> None:
    drain, running, door = Drain(), Running(), asyncio.Event()
    drain.begin(running, door.set, leave_seconds=0.05, drain_seconds=0.05)
    assert drain.leaving
    assert not door.is_set()
    await asyncio.wait_for(door.wait(), 1)
    assert running.told == 0
    await asyncio.sleep(0.1)
    assert running.told == 1


async def test_without_an_edge_the_door_closes_at_once() -> None:
    drain, door = Drain(), asyncio.Event()
    drain.begin(Running(), door.set, leave_seconds=0, drain_seconds=60)
    assert door.is_set()


async def test_asked_again_what_runs_is_told_at_once() -> None:
    drain, running, doors = Drain(), Running(), []
    for _ in range(2):
        drain.begin(running, lambda: doors.append(1), leave_seconds=60, drain_seconds=60)
    assert running.told == 1
    assert doors == []
