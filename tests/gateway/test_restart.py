"""Gateways behind the edge come and go, and nobody who asked notices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from edge_parts import LEAVE, alive, run_edge, run_gateways
from gateway_parts import ADA, free_port, run_gateway, until
from scripted_upstream import MODEL, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edge_parts import Edge, Supervised

LONG = 6.0  # seconds that the long streams take: longer than a restart


@dataclass
class Site:
    edge: Edge
    gateways: list[Supervised]
    upstream: ScriptedUpstream


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with ScriptedUpstream() as upstream, run_gateways(folder, upstream.url) as gateways:
        ports = [int(each.url.rpartition(":")[2]) for each in gateways]
        with run_edge(folder / "edge", ports) as edge:
            yield Site(edge, gateways, upstream)


@pytest.fixture(autouse=True)
def _both_up(site: Site) -> None:
    until(lambda: [site.edge.server(number) for number in (1, 2)] == ["UP", "UP"], 40)


@dataclass
class Load:
    """Requests without a pause, half of them streams, until told to stop."""

    url: str
    long: bool = False
    ended: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    _stop: bool = False

    async def run(self, during: Callable[[], None], lanes: int = 8) -> None:
        """Keep `lanes` requests in flight while `during` runs in a thread."""
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {ADA}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=60),
        ) as session:
            tasks = [asyncio.create_task(self._lane(session, number)) for number in range(lanes)]
            try:
                await asyncio.to_thread(during)
            finally:
                self._stop = True
                await asyncio.gather(*tasks)

    async def _lane(self, session: aiohttp.ClientSession, number: int) -> None:
        count = number
        while not self._stop:
            long = self.long and number < 4
            stream = long or count % 2 == 0
            tokens = 400 if long else 20
            try:
                await self._one(session, stream=stream, tokens=tokens)
                self.ended["stream" if stream else "whole"] += 1
            except (aiohttp.ClientError, TimeoutError, ValueError, AssertionError) as error:
                self.troubles.append(f"{'stream' if stream else 'whole'}: {error!r}")
            count += 1

    async def _one(self, session: aiohttp.ClientSession, *, stream: bool, tokens: int) -> None:
        script = str(Script(tokens=tokens, delay=LONG / 400 if self.long else 0.02))
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": script}],
            "stream": stream,
        }
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{answer.status} {text[:200]}"
            if not stream:
                assert json.loads(text)["usage"]["completion_tokens"] == tokens
                return
            assert text.endswith("data: [DONE]\n\n"), f"a stream broke: {text[-200:]}"
            assert text.count('"content"') >= tokens


def test_gateways_are_restarted_in_turn_under_load_and_nothing_fails(site: Site) -> None:
    load = Load(site.edge.url, long=True)
    took: list[float] = []
    running: list[bool] = []

    def restarts() -> None:
        time.sleep(1)
        for gateway in site.gateways:
            left_behind = gateway.worker
            took.append(gateway.stop())
            running.append(alive(left_behind))
            gateway.start()

    asyncio.run(load.run(restarts))
    assert load.troubles == []
    assert load.ended["stream"] > 20
    assert load.ended["whole"] > 20
    # The first had long streams, all begun a second before, and did not wait for them.
    assert running[0]
    assert took[0] < LEAVE + LONG / 2
    assert [len(gateway.workers) for gateway in site.gateways] == [2, 2]
    until(lambda: not any(alive(gateway.workers[0]) for gateway in site.gateways), LONG + 10)


def test_the_edge_reloads_under_load_and_nothing_fails(site: Site) -> None:
    load = Load(site.edge.url)

    def reloads() -> None:
        for _ in range(3):
            time.sleep(0.7)
            site.edge.reload()
        time.sleep(0.7)

    asyncio.run(load.run(reloads))
    assert load.troubles == []
    assert load.ended.total() > 20


def test_a_killed_gateway_loses_what_it_had_in_flight_and_nothing_after(site: Site) -> None:
    victim = site.gateways[0]
    lost = Load(site.edge.url)
    since = []

    def kill() -> None:
        time.sleep(1)
        victim.kill()
        since.append(time.monotonic())
        time.sleep(0.2)

    asyncio.run(lost.run(kill, lanes=16))
    # Both gateways had about half of what was in flight. Nobody sends again what one had taken.
    assert 1 <= len(lost.troubles) <= 14, lost.troubles
    after = Load(site.edge.url)
    asyncio.run(after.run(lambda: time.sleep(2)))
    assert after.troubles == []
    victim.start()
    until(lambda: site.edge.server(1) == "UP")


def test_what_a_killed_gateway_had_is_answered_in_the_apis_own_shape(site: Site) -> None:
    """A request that was read is not sent again: 502, and the upstream saw it once."""
    victim = site.gateways[0]
    survivor = site.gateways[1]
    os.kill(survivor.worker, signal.SIGSTOP)
    try:
        until(lambda: site.edge.server(2) == "DOWN", 15)
        site.upstream.requests.clear()

        async def ask() -> tuple[int, dict[str, object], str]:
            async with aiohttp.ClientSession() as session:
                body = {"model": MODEL, "prompt": str(Script(head_delay=10))}
                asked = asyncio.create_task(_post(session, f"{site.edge.url}/v1/completions", body))
                while not site.upstream.requests:  # noqa: ASYNC110 - the mock tells nobody
                    await asyncio.sleep(0.02)
                victim.kill()
                return await asked

        status, error, again = asyncio.run(ask())
    finally:
        os.kill(survivor.worker, signal.SIGCONT)
    assert (status, again) == (502, "1")
    assert error["code"] == "gateway_failed"
    assert len(site.upstream.requests) == 1
    victim.start()


def test_without_a_gateway_the_edge_answers_in_the_apis_own_shape(tmp_path: Path) -> None:
    with run_edge(tmp_path / "edge", [free_port()], ready=503) as edge:
        answer = httpx.post(f"{edge.url}/v1/completions", json={}, trust_env=False)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "gateway_unavailable")


async def _post(
    session: aiohttp.ClientSession, url: str, body: dict[str, object]
) -> tuple[int, dict[str, object], str]:
    headers = {"Authorization": f"Bearer {ADA}"}
    async with session.post(url, json=body, headers=headers) as answer:
        found = await answer.json()
        return answer.status, found["error"], answer.headers.get("Retry-After", "")


def test_a_frozen_gateway_is_taken_out_within_seconds(site: Site) -> None:
    frozen = site.gateways[0]
    os.kill(frozen.worker, signal.SIGSTOP)
    try:
        began = time.monotonic()
        until(lambda: site.edge.server(1) == "DOWN", 15)
        assert time.monotonic() - began < 8
        load = Load(site.edge.url)
        asyncio.run(load.run(lambda: time.sleep(1.5)))
        assert load.troubles == []
        assert load.ended.total() > 4
    finally:
        os.kill(frozen.worker, signal.SIGCONT)


def test_a_frozen_gateway_can_be_restarted(site: Site) -> None:
    """Its worker cannot close the door, and is not waited for."""
    gateway = site.gateways[0]
    frozen = gateway.worker
    os.kill(frozen, signal.SIGSTOP)
    took = gateway.stop()
    gateway.start()
    until(lambda: not alive(frozen))
    assert took < LEAVE + 12


def test_a_worker_whose_main_process_was_killed_gives_up_the_port(site: Site) -> None:
    """Its successor waits for the door to close, instead of failing to start."""
    gateway = site.gateways[0]
    orphan = gateway.worker
    assert gateway.process is not None
    gateway.process.kill()
    gateway.process.wait()
    gateway.start()
    until(lambda: not alive(orphan))


def test_a_leaving_gateway_says_so_and_still_serves(site: Site) -> None:
    gateway = site.gateways[0]
    with httpx.Client(base_url=gateway.url, trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: client.get("/healthz").status_code == 503)
        answer = client.get("/v1/models", headers={"Authorization": f"Bearer {ADA}"})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
    assert gateway.process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{gateway.url}/healthz", trust_env=False)
    gateway.start()


def test_alone_it_stays_until_its_streams_have_ended(tmp_path: Path) -> None:
    """Without --hand-over nothing is left behind: whoever waits for the process waits for all."""
    with (
        ScriptedUpstream() as upstream,
        run_gateway(tmp_path / "alone", upstream.url, limits={"drain_seconds": 20}) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client,
    ):
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": str(Script(tokens=40, delay=0.05))}],
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {ADA}"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""]
        assert time.monotonic() - began > 1
        assert gateway.process.wait(20) == 0


def test_asked_a_second_time_it_ends_running_streams(tmp_path: Path) -> None:
    """A host that goes down asks what is left once more: streams get an error, not silence."""
    with (
        ScriptedUpstream() as upstream,
        run_gateways(tmp_path, upstream.url, count=1) as gateways,
        httpx.Client(base_url=gateways[0].url, trust_env=False, timeout=30) as client,
    ):
        worker = gateways[0].worker
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": str(Script(tokens=600, delay=0.05))}],
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {ADA}"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            gateways[0].stop()
            assert alive(worker)
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
            rest = list(lines)
        assert "is being stopped" in rest[-2]
        assert "data: [DONE]" not in rest
        until(lambda: not alive(worker), 10)
