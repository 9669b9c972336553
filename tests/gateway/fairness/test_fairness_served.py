"""Lanes, shares, shedding and steering through a gateway that runs, in front of the mock."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from gateway_parts import ADA, EVE, RunningGateway, free_port, run_gateway, until
from replica_parts import run_mocks, run_smg
from scripted_upstream import MODEL, Script, ScriptedUpstream

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {"jurisdiction": "de", "classification": "internal"}


def models(upstream: str, **more: Any) -> list[dict[str, Any]]:
    both = ["press", "research"]
    return [{"id": MODEL, "upstream": upstream, "teams": both, "labels": LABELS, **more}]


@dataclass
class Asked:
    """What came of one request; times in seconds since it was sent."""

    status: int
    first: float | None
    took: float
    retry_after: int | None = None


async def ask(client: httpx.AsyncClient, token: str = ADA, *, script: Script, **more: Any) -> Asked:
    body = {"model": MODEL, "prompt": str(script), "stream": True} | more
    began = time.perf_counter()
    first = None
    headers = {"Authorization": f"Bearer {token}"}
    async with client.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        async for _ in response.aiter_lines():
            if first is None:
                first = time.perf_counter() - began
    retry = response.headers.get("retry-after")
    return Asked(
        response.status_code, first, time.perf_counter() - began, int(retry) if retry else None
    )


def client_of(gateway: RunningGateway) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits, trust_env=False)


LONG = Script(tokens=30, delay=0.05)
SHORT = Script(tokens=2)


async def test_a_short_question_does_not_wait_for_eight_long_ones(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    seen = f"127.0.0.1:{free_port()}"
    with run_gateway(
        tmp_path / "g", upstream.url, models=models(upstream.url, slots=8), metrics=seen
    ) as gateway:
        async with client_of(gateway) as client:
            await ask(client, script=SHORT, max_tokens=2)
            long = [asyncio.ensure_future(ask(client, script=LONG)) for _ in range(8)]
            await asyncio.to_thread(until, lambda: upstream.active == 7)
            short = await ask(client, script=SHORT, max_tokens=2)
            assert short.first is not None
            assert short.first < 0.5
            assert not any(task.done() for task in long)
            assert upstream.active == 7  # the eighth still waits in turn
            told = (await client.get(f"http://{seen}/metrics")).text
            lane = f'{{model="{MODEL}",upstream="{upstream.url}",lane="long"}}'
            assert f"holdfast_gateway_lane_in_flight{lane} 7\n" in told
            assert f"holdfast_gateway_lane_queued{lane} 1\n" in told
            ended = await asyncio.gather(*long)
    assert [each.status for each in ended] == [200] * 8
    assert max(each.first or 0 for each in ended) >= 1.4


async def test_a_flood_of_one_team_takes_its_share_and_no_more(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    script = Script(tokens=2, delay=0.02)
    with run_gateway(
        tmp_path / "g",
        upstream.url,
        models=models(upstream.url, slots=4),
        fairness={"short_share": 0},
    ) as gateway:
        async with client_of(gateway) as client:
            flood = [asyncio.ensure_future(ask(client, script=script)) for _ in range(100)]
            await asyncio.to_thread(until, lambda: len(upstream.requests) > 8)
            theirs = await asyncio.gather(*(ask(client, EVE, script=script) for _ in range(4)))
            in_the_way = sum(task.done() for task in flood)
            flooded = await asyncio.gather(*flood)
    assert {each.status for each in (*theirs, *flooded)} == {200}
    # Half of the pool was theirs from their first request on: four of ours for four of theirs.
    assert in_the_way < 60
    assert max(each.took for each in theirs) < max(each.took for each in flooded) / 2


async def test_beyond_what_a_pool_can_take_there_is_a_quick_no(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Twice what the pool carries, for a while: 429 at once, and the others keep their time."""
    script = Script(tokens=2, delay=0.1)
    with run_gateway(
        tmp_path / "g",
        upstream.url,
        models=models(upstream.url, slots=4),
        fairness={"short_share": 0, "queue_seconds": 0.5},
    ) as gateway:
        async with client_of(gateway) as client:
            for _ in range(3):  # it learns how long an answer takes
                await asyncio.gather(*(ask(client, script=script) for _ in range(4)))
            asked = []
            for _ in range(80):  # 4 slots of 0.2 s carry 20 a second; these are 40
                asked.append(asyncio.ensure_future(ask(client, script=script)))
                await asyncio.sleep(0.025)
            ended = await asyncio.gather(*asked)
    served = [each for each in ended if each.status == 200]
    shed = [each for each in ended if each.status == 429]
    assert len(served) + len(shed) == 80
    assert len(shed) >= 15
    assert len(served) >= 25
    assert max(each.took for each in served) < 0.5 + 0.2 + 1.0
    quick = sorted(each.took for each in shed)[len(shed) * 3 // 4]
    assert quick < 0.2
    assert all(each.retry_after == 1 for each in shed)


def test_a_refusal_says_what_and_until_when(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with run_gateway(
        tmp_path / "g",
        upstream.url,
        models=models(upstream.url, slots=1),
        fairness={"queue_length": 0},
    ) as gateway:
        long = str(Script(tokens=100, delay=0.1))
        stream = gateway.client().completions.create(model=MODEL, prompt=long, stream=True)
        next(iter(stream))
        answer = gateway.post({"model": MODEL, "prompt": "Hi"}, "/v1/completions")
        stream.close()
        assert answer.status_code == 429
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("overloaded", "rate_limit_exceeded")
        assert int(answer.headers["retry-after"]) >= 1
        assert f"in {answer.headers['retry-after']} s" in error["message"]
        until(lambda: upstream.active == 0)
        assert gateway.post({"model": MODEL, "prompt": "Hi"}, "/v1/completions").status_code == 200


async def test_who_goes_away_leaves_the_queue(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with run_gateway(tmp_path / "g", upstream.url, models=models(upstream.url, slots=1)) as gateway:
        async with client_of(gateway) as client:
            holding = asyncio.ensure_future(ask(client, script=LONG))
            await asyncio.to_thread(until, lambda: upstream.active == 1)
            gone = [asyncio.ensure_future(ask(client, script=LONG)) for _ in range(5)]
            await asyncio.sleep(0.3)
            for task in gone:
                task.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            assert (await ask(client, script=SHORT)).status == 200
            assert (await holding).status == 200
    assert len(upstream.requests) == 2


def test_what_clients_say_of_priority_and_salt_is_replaced(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    def seen(gateway: RunningGateway, token: str = ADA, **more: Any) -> tuple[int, str]:
        theirs = {"model": MODEL, "priority": -9, "cache_salt": "mine"}
        headers = {"Authorization": f"Bearer {token}"}
        answer = gateway.post(
            {**theirs, "prompt": "Hi", **more}, "/v1/completions", headers=headers
        )
        assert answer.status_code == 200
        body = upstream.requests[-1].body
        return body["priority"], body["cache_salt"]

    folder = tmp_path / "g"
    with run_gateway(folder, upstream.url, models=models(upstream.url)) as gateway:
        long, research = seen(gateway)
        short, again = seen(gateway, max_tokens=2)
        _, press = seen(gateway, EVE)
        assert research == again != press
        assert "mine" not in {research, press}
        assert (short, long) == (0, 1)  # vLLM serves the smaller number first
    with run_gateway(folder, upstream.url, models=models(upstream.url)) as gateway:
        assert seen(gateway)[1] == research
    with run_gateway(tmp_path / "other", upstream.url, models=models(upstream.url)) as gateway:
        assert seen(gateway)[1] != research


def test_teams_are_served_by_the_pools_that_name_them(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with ScriptedUpstream() as new:
        listed = models(upstream.url, pools=[{"upstream": new.url, "teams": ["research"]}])
        with run_gateway(tmp_path / "g", upstream.url, models=listed) as gateway:
            for token, pool in ((ADA, new), (EVE, upstream)):
                asked = {"model": MODEL, "prompt": "Hi"}
                headers = {"Authorization": f"Bearer {token}"}
                for _ in range(3):
                    gateway.post(asked, "/v1/completions", headers=headers)
                assert len(pool.requests) == 3
        assert len(upstream.requests) == 3


def test_prompts_still_go_where_their_beginning_was(tmp_path: Path) -> None:
    """What the gateway writes into each body, a new number each time, does not mislead smg."""
    with run_mocks(2) as mocks, run_smg(tmp_path, [each.url for each in mocks]) as smg:
        with run_gateway(tmp_path / "g", smg.url, models=models(smg.url)) as gateway:
            for turn in range(8):
                prompt = f"{'A long beginning that all have. ' * 40} {turn}?"
                asked = {"model": MODEL, "prompt": prompt}
                assert gateway.post(asked, "/v1/completions").status_code == 200
        assert sorted(len(mock.requests) for mock in mocks) == [0, 8]


async def test_many_streams_are_not_held_up_where_nothing_is_said_of_slots(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    script = Script(tokens=3, delay=0.5)
    with run_gateway(tmp_path / "g", upstream.url, models=models(upstream.url)) as gateway:
        async with client_of(gateway) as client:
            asked = [asyncio.ensure_future(ask(client, script=script)) for _ in range(60)]
            ended = await asyncio.gather(*asked)
    assert {each.status for each in ended} == {200}
    assert max(each.first or 99 for each in ended) < 3
