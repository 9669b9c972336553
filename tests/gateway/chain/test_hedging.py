"""Before the first byte: a second replica is asked once, for a reason, and never else."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import httpx
import pytest
from gateway_parts import ADA, RunningGateway, free_port, run_gateway, until
from replica_parts import Balancer, run_mocks, run_smg
from scripted_upstream import MODEL, WORDS, Script, ScriptedUpstream

from holdfast_gateway.chain.hedging import Race
from holdfast_gateway.config import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TTFT = 0.6
SAME_PROMPT = "same prompt " * 20


@pytest.fixture(scope="module")
def mocks() -> Iterator[list[ScriptedUpstream]]:
    with run_mocks(2) as running:
        yield running


@pytest.fixture(scope="module")
def balancer(
    tmp_path_factory: pytest.TempPathFactory, mocks: list[ScriptedUpstream]
) -> Iterator[Balancer]:
    with run_smg(tmp_path_factory.mktemp("smg"), [mock.url for mock in mocks]) as running:
        yield running


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, balancer: Balancer
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    limits = {"ttft_seconds": TTFT, "recover_seconds": 5}
    with run_gateway(folder, balancer.url, limits=limits) as running:
        yield running


@pytest.fixture
def gateway(
    shared_gateway: RunningGateway, balancer: Balancer, mocks: list[ScriptedUpstream]
) -> Iterator[RunningGateway]:
    for mock in mocks:
        mock.requests.clear()
    shared_gateway.look_from_now()
    yield shared_gateway
    for mock in mocks:
        mock.frozen = mock.sick = False
    until(lambda: all(mock.active == 0 for mock in mocks))
    until(lambda: balancer.healthy() == 2, 30)


def asking(text: str = SAME_PROMPT, *, stream: bool = True) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": stream}


def freeze_the_one_that_has_it(
    gateway: RunningGateway, mocks: list[ScriptedUpstream]
) -> ScriptedUpstream:
    """Freeze the replica that smg sends this prompt to; its health check goes on saying yes."""
    gateway.post(asking())
    gateway.rows(1)
    gateway.look_from_now()
    (found,) = (mock for mock in mocks if mock.requests)
    found.requests.clear()
    found.frozen = True
    return found


def test_a_stream_is_answered_by_the_other(
    gateway: RunningGateway, mocks: list[ScriptedUpstream]
) -> None:
    frozen = freeze_the_one_that_has_it(gateway, mocks)
    began = time.monotonic()
    answer = gateway.post(asking())
    assert TTFT <= time.monotonic() - began < TTFT + 2
    assert answer.text.count("data: ") == 5
    assert answer.text.endswith("data: [DONE]\n\n")
    until(lambda: frozen.active == 0)  # the loser is cancelled
    row = gateway.rows(1)[0]
    other = next(mock for mock in mocks if mock is not frozen)
    assert row["replica"] == other.url.removeprefix("http://")
    assert (row["state"], row["attempts"], row["completion_tokens"]) == ("done", 2, 4)
    assert [len(mock.requests) for mock in (frozen, other)] == [1, 1]
    assert "127.0.0.1" not in str(answer.headers) + answer.text


def test_the_first_may_still_win(gateway: RunningGateway, mocks: list[ScriptedUpstream]) -> None:
    first = freeze_the_one_that_has_it(gateway, mocks)
    other = next(mock for mock in mocks if mock is not first)
    other.frozen = True
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(gateway.post, asking())
        until(lambda: other.active == 1)
        first.frozen = False
        assert waiting.result().text.endswith("[DONE]\n\n")
    until(lambda: other.active == 0)
    row = gateway.rows(1)[0]
    assert (row["replica"], row["attempts"]) == (first.url.removeprefix("http://"), 2)
    assert row["completion_tokens"] == 4


def test_one_that_is_quick_is_asked_alone(
    gateway: RunningGateway, mocks: list[ScriptedUpstream]
) -> None:
    script = Script(tokens=8, delay=0.2)  # longer than the deadline, but begun within it
    assert gateway.post(asking(str(script))).text.endswith("[DONE]\n\n")
    assert sum(len(mock.requests) for mock in mocks) == 1
    assert gateway.rows(1)[0]["attempts"] == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_whole_answer_is_rescued_once_the_balancer_gives_its_replica_up(
    gateway: RunningGateway, mocks: list[ScriptedUpstream], path: str
) -> None:
    frozen = freeze_the_one_that_has_it(gateway, mocks)
    frozen.sick = True
    prompt = asking(stream=False) if "chat" in path else {"model": MODEL, "prompt": SAME_PROMPT}
    answer = gateway.post(prompt, path)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 4
    row = gateway.rows(1)[0]
    assert (row["state"], row["completion_tokens"]) == ("done", 4)
    until(lambda: frozen.active == 0)
    assert row["attempts"] == len(frozen.requests) + 1


def test_a_slow_whole_answer_is_left_alone(
    gateway: RunningGateway, mocks: list[ScriptedUpstream]
) -> None:
    answer = gateway.post(asking(str(Script(tokens=4, delay=0.6)), stream=False))
    assert answer.json()["choices"][0]["message"]["content"] == "".join(WORDS[:4])
    assert sum(len(mock.requests) for mock in mocks) == 1


def test_a_client_that_leaves_ends_both_attempts(
    gateway: RunningGateway, mocks: list[ScriptedUpstream]
) -> None:
    for mock in mocks:
        mock.frozen = True
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{gateway.url}/v1/chat/completions",
            json=asking(),
            headers={"Authorization": f"Bearer {ADA}"},
            timeout=TTFT + 1,
        )
    assert [len(mock.requests) for mock in mocks] == [1, 1]
    until(lambda: all(mock.active == 0 for mock in mocks))
    row = gateway.rows(1)[0]
    assert (row["state"], row["attempts"]) == ("aborted", 2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_balancer_that_is_restarted_is_waited_for(tmp_path: Path, *, stream: bool) -> None:
    """Nobody accepts the connection for a second: nothing was sent, so nothing is sent twice."""
    port = free_port()
    limits = {"recover_seconds": 8}
    with run_gateway(tmp_path, f"http://127.0.0.1:{port}", limits=limits) as gateway:
        back = ScriptedUpstream(port)
        timer = threading.Timer(1, back.__enter__)
        timer.start()
        try:
            answer = gateway.post(asking(stream=stream))
        finally:
            timer.join()
            back.__exit__(None, None, None)
    assert answer.status_code == 200
    assert gateway.rows(1)[0]["attempts"] == 1


async def test_the_winner_of_a_race_that_is_called_off_is_let_go() -> None:
    loop = asyncio.get_running_loop()
    closed: list[str] = []

    class Runner:
        """An attempt that never answers, or one that does as its request is called off."""

        replica = None

        def __init__(self, *, elsewhere: bool) -> None:
            self.name = "second" if elsewhere else "first"

        async def begin(self) -> None:
            if self.name == "first":
                await asyncio.sleep(60)
            loop.call_soon(running.cancel)

        def close(self) -> None:
            closed.append(self.name)

    def start(elsewhere: bool) -> Any:  # noqa: FBT001  # Race.Start
        return Runner(elsewhere=elsewhere)

    watch, seen = Mock(second_attempts=asyncio.Semaphore()), Mock(attempts=0)
    race = Race(start, watch, Limits(), seen, deadline=0.01)
    running = asyncio.ensure_future(race.run())
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(closed) == {"first", "second"}
