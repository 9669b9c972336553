"""Watching a pool: who is told what, and that nobody is asked for nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from holdfast_gateway.chain import watch as watching
from holdfast_gateway.chain.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = 0.01


class Balancer:
    """What a balancer would list, and how often it was asked."""

    def __init__(self, **well: bool) -> None:
        self.well = well
        self.asked = 0
        self.away = False

    async def get(self, url: str) -> bytes:
        assert url == "http://balancer/workers"
        self.asked += 1
        if self.away:
            raise TimeoutError
        workers = [{"url": f"http://{name}", "is_healthy": is_} for name, is_ in self.well.items()]
        return json.dumps({"workers": workers}).encode()

    async def asked_again(self) -> None:
        before = self.asked
        while self.asked < before + 2:  # noqa: ASYNC110  # the poller is what is looked at
            await asyncio.sleep(EVERY / 4)


class Heard(list[tuple[set[str], set[str]]]):
    __hash__ = object.__hash__

    def replicas_fell_ill(self, newly: frozenset[str], all_sick: frozenset[str]) -> None:
        self.append((set(newly), set(all_sick)))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_EVERY_SECONDS", EVERY)


def run(balancer: Balancer, story: Callable[[Watch], object]) -> None:
    async def tell() -> None:
        watch = Watch("http://balancer", balancer.get)
        try:
            await story(watch)  # type: ignore[misc]  # each story is a coroutine function
        finally:
            watch.close()

    asyncio.run(tell())


def test_what_is_answered_quickly_costs_no_question() -> None:
    balancer, heard = Balancer(a=True), Heard()

    async def story(watch: Watch) -> None:
        for _ in range(20):
            watch.follow(heard)
            watch.leave(heard)
        await asyncio.sleep(EVERY * 5)

    run(balancer, story)
    assert balancer.asked == 0


def test_it_stops_asking_when_nobody_waits() -> None:
    balancer, heard = Balancer(a=True), Heard()

    async def story(watch: Watch) -> None:
        watch.follow(heard)
        await balancer.asked_again()
        watch.leave(heard)
        await asyncio.sleep(EVERY * 3)
        before = balancer.asked
        await asyncio.sleep(EVERY * 5)
        assert balancer.asked == before

    run(balancer, story)


def test_an_illness_is_new_once_and_a_drained_replica_is_not_ill() -> None:
    balancer, heard = Balancer(a=True, b=True, c=True), Heard()

    async def story(watch: Watch) -> None:
        watch.follow(heard)
        await balancer.asked_again()
        assert heard == []
        del balancer.well["c"]
        await balancer.asked_again()
        assert heard == []
        balancer.well["a"] = False
        await balancer.asked_again()
        assert heard[0] == ({"a"}, {"a"})
        assert all(told == (set(), {"a"}) for told in heard[1:])
        balancer.well["a"] = True
        await balancer.asked_again()
        heard.clear()
        balancer.well["a"] = False
        await balancer.asked_again()
        assert heard[0] == ({"a"}, {"a"})

    run(balancer, story)


def test_a_balancer_that_is_away_is_complained_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    balancer, heard = Balancer(a=True), Heard()
    balancer.away = True

    async def story(watch: Watch) -> None:
        watch.follow(heard)
        await balancer.asked_again()
        await balancer.asked_again()
        balancer.away = False
        balancer.well["a"] = False
        await balancer.asked_again()

    run(balancer, story)
    assert heard[0] == ({"a"}, {"a"})
    assert caplog.text.count("does not list its workers") == 1
