"""One row and one event for each request, with the tokens that were really produced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_parts import (
    ADA,
    COMMAND,
    EVE,
    OTHERS,
    REVISION,
    RunningGateway,
    free_port,
    run_gateway,
    until,
)
from scripted_prometheus import ScriptedPrometheus
from scripted_upstream import MODEL, PROMPT_TOKENS, Script, ScriptedUpstream

from holdfast_trust.ledger import verify

AUTH = {"Authorization": f"Bearer {ADA}"}


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def kill(parent: int) -> None:
    """Kill a gateway's processes as the machine's memory killer would: all, and at once."""
    family = [parent]
    for process in family:
        for threads in Path(f"/proc/{process}/task").glob("*/children"):
            family += map(int, threads.read_text().split())
    for process in reversed(family):  # a child that sees its parent go would end in order
        os.kill(process, signal.SIGKILL)


def chat(*, stream: bool = True, **script: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": str(Script(**script))}]
    return {"model": MODEL, "messages": messages, "stream": stream}


@pytest.mark.parametrize("stream", [True, False])
def test_the_row_of_a_whole_answer(gateway: RunningGateway, *, stream: bool) -> None:
    answer = gateway.post(
        chat(stream=stream, tokens=5, delay=0.02), headers={"X-Session-Id": "session-1"}
    )
    row = gateway.rows(1)[0]
    assert datetime.fromisoformat(row.pop("time")).year >= 2026
    assert (duration := row.pop("duration_ms")) >= 100
    ttft = row.pop("ttft_ms")
    assert (20 <= ttft <= duration - 60) if stream else ttft is None, ttft
    itl = row.pop("itl_ms")
    assert (15 <= itl < 100) if stream else itl is None
    assert 0 <= row.pop("queue_ms") < 100
    assert row.pop("attempts") >= 0
    assert row.pop("token")
    replica, host = row.pop("replica"), row.pop("host")
    assert host == (None if replica is None else replica.rpartition(":")[0])
    assert row == {
        "request_id": answer.headers["x-request-id"],
        "principal": "ada",
        "principal_kind": "user",
        "owner": None,
        "team": "research",
        "session": "session-1",
        "gateway": "gateway",
        "model": MODEL,
        "revision": REVISION,
        "endpoint": "/v1/chat/completions",
        "stream": int(stream),
        "status": 200,
        "state": "done",
        "error_code": None,
        "prompt_tokens": 7,
        "cached_tokens": 4,
        "completion_tokens": 5,
        # 3 prompt tokens, 4 cached ones and 5 of the answer, in millionths
        "cost": 3 * 2 + 4 * 1 + 5 * 10,
        "currency": "EUR",
    }


def test_the_row_of_an_embedding(gateway: RunningGateway) -> None:
    assert gateway.post({"model": MODEL, "input": "x"}, "/v1/embeddings").status_code == 200
    row = gateway.rows(1)[0]
    assert (row["endpoint"], row["prompt_tokens"], row["completion_tokens"]) == (
        "/v1/embeddings",
        3,
        0,
    )


@pytest.mark.parametrize("n", [1, 2])
def test_an_aborted_stream_is_billed_to_the_token(
    gateway: RunningGateway, upstream: ScriptedUpstream, n: int
) -> None:
    body = chat(tokens=6, hang_after=4) | {"n": n}
    with httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=body, headers=AUTH
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(4 * n):
            next(lines)
    until(lambda: upstream.active == 0)
    row = gateway.rows(1)[0]
    assert (row["state"], row["status"]) == ("aborted", 499)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (7, 4 * n)
    assert upstream.requests[0].produced == 4 * n


def test_an_abort_before_the_first_token_is_unknown_not_zero(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    for stream in (True, False):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{gateway.url}/v1/chat/completions",
                json=chat(stream=stream, head_delay=60),
                headers=AUTH,
                timeout=0.5,
            )
    until(lambda: upstream.active == 0)
    for row in gateway.rows(2):
        assert (row["state"], row["completion_tokens"]) == ("aborted", None)


def test_the_event_says_who_and_what_and_never_the_words(gateway: RunningGateway) -> None:
    gateway.post(chat(tokens=3))
    gateway.post({"model": OTHERS, "messages": [{"role": "user", "content": "a secret"}]})
    done, refused = gateway.events(2)
    assert (done["allowed"], done["state"], done["completion_tokens"]) == (True, "done", 3)
    assert done["policies"] == ["model.team-infers"]
    assert done["policy_version"].startswith("sha256:")
    assert (refused["allowed"], refused["state"], refused["status"]) == (False, "refused", 404)
    assert refused["model"] == OTHERS
    ledger = (gateway.folder / "ledger" / "entries.jsonl").read_text()
    assert "a secret" not in ledger
    assert ADA not in ledger
    assert "grüßt" not in ledger
    assert len(gateway.rows(1)) == 1  # what was refused used nothing


def test_strangers_leave_neither_row_nor_event(gateway: RunningGateway) -> None:
    assert gateway.post(chat(), headers={"Authorization": "Bearer x"}).status_code == 401
    assert gateway.post(b"{").status_code == 400
    gateway.post(chat())
    assert len(gateway.rows(1)) == len(gateway.events(1)) == 1


async def test_200_streams_at_once_complete_with_one_row_each(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    body = chat(tokens=20, delay=0.05)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits, headers=AUTH) as client:
        url = f"{gateway.url}/v1/chat/completions"
        answers = await asyncio.gather(*(client.post(url, json=body) for _ in range(200)))
    assert [answer.status_code for answer in answers] == [200] * 200
    assert {answer.content for answer in answers} == {answers[0].content}
    assert answers[0].text.endswith("data: [DONE]\n\n")
    rows = gateway.rows(200)
    assert {row["request_id"] for row in rows} == {
        answer.headers["x-request-id"] for answer in answers
    }
    assert {(row["state"], row["completion_tokens"]) for row in rows} == {("done", 20)}
    assert len(upstream.requests) == 200
    gateway.events(200)


def test_stopping_writes_what_streams_still_owe(own_gateway: RunningGateway) -> None:
    gateway = own_gateway
    with httpx.stream(
        "POST",
        f"{gateway.url}/v1/chat/completions",
        json=chat(tokens=9, hang_after=3),
        headers=AUTH,
        timeout=30,
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(3):
            next(lines)
        gateway.process.terminate()
        rest = list(lines)  # drain_seconds pass, then the stream is told
    assert "being stopped" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
    assert gateway.process.wait(20) == 0
    row = gateway.rows(1)[0]
    assert (row["state"], row["completion_tokens"]) == ("error", 3)


def test_stopping_lets_a_stream_end(own_gateway: RunningGateway) -> None:
    gateway = own_gateway
    with httpx.stream(
        "POST",
        f"{gateway.url}/v1/chat/completions",
        json=chat(tokens=10, delay=0.1),
        headers=AUTH,
    ) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        gateway.process.terminate()
        assert list(lines)[-1] == "data: [DONE]"
    assert gateway.process.wait(20) == 0
    assert gateway.rows(1)[0]["state"] == "done"
    report = verify(gateway.folder / "ledger")
    assert report.entries == 1
    # Sound and signed to its end; only, no witness keeps its checkpoints here.
    assert [finding.name for finding in report.findings] == ["unanchored"]


def test_usage_sums_up(own_gateway: RunningGateway) -> None:
    gateway = own_gateway
    gateway.post(chat(tokens=3))
    gateway.post(chat(tokens=4, stream=False))
    gateway.post(chat(tokens=9, crash_after=2) | {"n": 2})  # which cannot be resumed
    gateway.post(chat() | {"model": OTHERS}, headers={"Authorization": f"Bearer {EVE}"})
    gateway.rows(4)
    command = [*COMMAND, "usage", "--config", str(gateway.config)]
    printed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    ada = {
        "model": MODEL,
        "user": "ada",
        "requests": 3,
        "done": 2,
        "aborted": 0,
        "error": 1,
        "prompt_tokens": 21,
        "cached_tokens": 8,
        "completion_tokens": 3 + 4 + 2 * 2,
        "unknown": 0,
    }
    eve = ada | {"model": OTHERS, "user": "eve", "requests": 1, "done": 1, "error": 0}
    eve |= {"prompt_tokens": 7, "cached_tokens": 4, "completion_tokens": 4}
    rows = json.loads(printed.stdout)["rows"]
    assert [{name: each[name] for name in ada} for each in rows] == [eve, ada]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shown = table.splitlines()[2].split()
    assert shown[:10] == [MODEL, "ada", "3", "0", "1", "0", "21", "8", "11", "0"]


def test_a_killed_gateway_loses_nothing_that_was_acknowledged(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with run_gateway(tmp_path, upstream.url) as gateway:
        # Nothing can be written: whole answers stand in the spool alone when it is killed.
        lock = sqlite3.connect(gateway.folder / "usage.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        done = [gateway.post(chat(tokens=3)).headers["x-request-id"] for _ in range(5)]
        refused = gateway.post({"model": OTHERS, "messages": [{"role": "user", "content": "x"}]})
        url = f"{gateway.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=chat(tokens=9, hang_after=3), headers=AUTH) as answer:
            lines = answer.iter_lines()  # kept: one that is let go of hangs up
            next(lines)
            running = answer.headers["x-request-id"]
            kill(gateway.process.pid)
        lock.close()
    with run_gateway(tmp_path, upstream.url) as gateway:
        rows = {row["request_id"]: row for row in gateway.rows(6)}
        assert {name: rows[name]["completion_tokens"] for name in done} == dict.fromkeys(done, 3)
        lost = rows[running]
        assert (lost["state"], lost["status"], lost["completion_tokens"]) == ("lost", 0, None)
        events = [event["request_id"] for event in gateway.events(7)]
        assert sorted(events) == sorted([*done, running, refused.headers["x-request-id"]])
        assert "5 requests" not in gateway.log()
        assert "6 requests that had ended are recorded now, and 1 in progress" in gateway.log()
    # The next start finds nothing more to do.
    with run_gateway(tmp_path, upstream.url) as gateway:
        assert gateway.log().count("was killed") == 0
        gateway.rows(6)
        gateway.events(7)


def test_metrics_are_read_on_a_door_of_their_own(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    port = free_port()
    with run_gateway(tmp_path, upstream.url, metrics=f"127.0.0.1:{port}") as gateway:
        gateway.post(chat(tokens=5, delay=0.01))
        gateway.rows(1)
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        of = f'model="{MODEL}",team="research"'
        assert f'holdfast_gateway_requests_total{{{of},state="done",status="200"}} 1' in text
        assert f'holdfast_gateway_tokens_total{{{of},kind="completion"}} 5' in text
        assert "holdfast_gateway_in_flight 0" in text
        assert "ada" not in text
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
        for headers in ({}, AUTH, {"X-Forwarded-For": "127.0.0.1"}):
            assert httpx.get(f"{gateway.url}/metrics", headers=headers).status_code == 404
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_a_port_for_metrics_that_is_taken_holds_up_nobody(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run_gateway(tmp_path, upstream.url, metrics=f"127.0.0.1:{port}") as gateway:
            assert gateway.post(chat()).status_code == 200
            taken.close()
            until(lambda: answers(f"http://127.0.0.1:{port}/metrics"))


def test_what_cannot_be_recorded_is_not_served(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with run_gateway(tmp_path, upstream.url, limits={"usage_backlog": 1}) as gateway:
        lock = sqlite3.connect(gateway.folder / "usage.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        assert gateway.post(chat()).status_code == 200
        refused = gateway.post(chat())
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "metering_unavailable"
        assert httpx.get(f"{gateway.url}/healthz").status_code == 503
        lock.close()
        gateway.rows(1)
        until(lambda: gateway.post(chat()).status_code == 200)
        gateway.rows(2)


def test_the_table_agrees_with_the_replicas_to_the_token(
    own_gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    gateway = own_gateway
    for stream in (True, False):
        gateway.post(chat(stream=stream, tokens=5))
        gateway.post(chat(stream=stream, tokens=9) | {"n": 2})
    url = f"{gateway.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=chat(tokens=9, hang_after=4), headers=AUTH) as answer:
        lines = (line for line in answer.iter_lines() if line)
        for _ in range(4):
            next(lines)
    until(lambda: upstream.active == 0)
    gateway.rows(5)
    began = min(datetime.fromisoformat(row["time"]).replace(tzinfo=UTC) for row in gateway.rows(5))
    produced = sum(seen.produced for seen in upstream.requests)
    assert produced == 2 * (5 + 18) + 4
    for more, verdict, code in ((0, "agree", 0), (3, "explained", 0), (-1, "differ", 3)):
        at = began.timestamp() + 0.5
        counters = {
            "prompt_tokens": [({"model_name": MODEL}, [(at, float(PROMPT_TOKENS * 5))])],
            "generation_tokens": [({"model_name": MODEL}, [(at, float(produced + more))])],
        }
        with ScriptedPrometheus(counters) as prometheus:
            config = gateway.folder / "with-prometheus.yml"
            config.write_text(gateway.config.read_text() + f"prometheus: {prometheus.url}\n")
            command = [*COMMAND, "usage", "--config", str(config), "--check", "--json"]
            command += ["--since", began.isoformat(), "--until", "2099-01-01"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = {each["kind"]: each["verdict"] for each in json.loads(done.stdout)}
        assert (found, done.returncode) == ({"prompt": "agree", "completion": verdict}, code)
