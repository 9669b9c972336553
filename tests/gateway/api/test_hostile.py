"""Clients that send half, send too much, send slowly, read nothing, or go away."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import ADA, RunningGateway, run_gateway, until
from scripted_upstream import MODEL, Script, ScriptedUpstream

if TYPE_CHECKING:
    from pathlib import Path

AUTH = {"Authorization": f"Bearer {ADA}"}


def connect(gateway: RunningGateway) -> socket.socket:
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def head(length: int | str, token: str = ADA) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def chat(**script: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": str(Script(**script))}]
    return {"model": MODEL, "messages": messages, "stream": True}


def still_serves(gateway: RunningGateway) -> bool:
    return gateway.post(chat()).status_code == 200


def test_half_a_body_reaches_nobody(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = json.dumps(chat()).encode()
    for _ in range(20):
        with connect(gateway) as client:
            client.sendall(head(len(body)) + body[: len(body) // 2])
    assert still_serves(gateway)
    assert len(upstream.requests) == 1
    gateway.rows(1)


def test_a_body_that_does_not_come_is_408(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    with (
        run_gateway(tmp_path, upstream.url, limits={"body_seconds": 0.5}) as gateway,
        connect(gateway) as client,
    ):
        client.sendall(head(100) + b"{")
        assert client.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_who_never_comes_to_the_point_holds_up_nobody(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    """Two hundred that send a head letter by letter, and two hundred a body."""
    begun = [connect(gateway) for _ in range(400)]
    try:
        for at, client in enumerate(begun):
            client.sendall(head(1000)[:60] if at % 2 else head(1000) + b"{")
        assert still_serves(gateway)
        for at, client in enumerate(begun):
            client.sendall(b"x" if at % 2 else b" ")
        assert still_serves(gateway)
        assert len(upstream.requests) == 2
    finally:
        for client in begun:
            client.close()
    assert still_serves(gateway)
    gateway.rows(3)


@pytest.mark.parametrize("announced", [True, False])
def test_64_mebibytes_are_refused_and_not_kept(
    gateway: RunningGateway, upstream: ScriptedUpstream, *, announced: bool
) -> None:
    before = resident_mebibytes(gateway)
    block = b" " * 65536
    content = block * 1024 if announced else iter([block] * 1024)
    try:
        answer = httpx.post(
            f"{gateway.url}/v1/chat/completions", content=content, headers=AUTH, timeout=60
        )
    except httpx.WriteError:
        pass  # the connection was closed on us in mid-body, which says it as well
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "request_too_large"
    assert resident_mebibytes(gateway) - before < 32
    assert still_serves(gateway)
    assert len(upstream.requests) == 1


def resident_mebibytes(gateway: RunningGateway) -> float:
    """Return what the worker process, granian's child, holds in memory."""
    from pathlib import Path

    task = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    worker = task.read_text().split()[0]
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def test_strangers_are_refused_before_their_body_is_read(gateway: RunningGateway) -> None:
    with connect(gateway) as client:
        client.sendall(head(64 * 1024 * 1024, "nobody"))
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\n b\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n",
    ],
    ids=["noise", "negative", "two lengths", "long header", "folded", "bytes", "path"],
)
def test_what_is_hardly_http_does_no_harm(gateway: RunningGateway, request_bytes: bytes) -> None:
    with connect(gateway) as client:
        try:
            client.sendall(request_bytes)
            answer = client.recv(65536)
        except (ConnectionError, BrokenPipeError):
            answer = b""
    assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 5"))
    assert still_serves(gateway)


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_frees_the_upstream(
    gateway: RunningGateway, upstream: ScriptedUpstream, *, stream: bool
) -> None:
    body = json.dumps(chat(tokens=10_000, delay=0.01) | {"stream": stream}).encode()
    clients = [connect(gateway) for _ in range(20)]
    for client in clients:
        client.sendall(head(len(body)) + body)
    until(lambda: upstream.active == 20)
    began = time.monotonic()
    for client in clients:
        client.close()
    until(lambda: upstream.active == 0)
    assert time.monotonic() - began < 5
    assert {row["state"] for row in gateway.rows(20)} == {"aborted"}


def test_who_reads_nothing_is_let_go(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    limits = {"idle_seconds": 1}
    with run_gateway(tmp_path, upstream.url, limits=limits) as gateway, connect(gateway) as client:
        body = json.dumps(chat(tokens=100_000)).encode()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(head(len(body)) + body)
        until(lambda: upstream.active == 1)
        until(lambda: upstream.active == 0, 30)
        row = gateway.rows(1)[0]
        assert row["state"] == "aborted"
        assert 0 < row["completion_tokens"] < 100_000


def test_who_does_not_read_a_whole_answer_is_let_go_and_holds_no_place(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    only_one = {"slots": 1, "short_share": 0, "queue_seconds": 0.5}
    limits = {"idle_seconds": 2}
    with (
        run_gateway(tmp_path, upstream.url, limits=limits, fairness=only_one) as gateway,
        connect(gateway) as client,
    ):
        body = json.dumps(chat(tokens=4_000_000) | {"stream": False}).encode()
        client.sendall(head(len(body)) + body)
        gateway.rows(1)  # it is here, and too large for what lies between
        assert gateway.post(chat(tokens=1) | {"stream": False}).status_code == 200
        time.sleep(4)
        read = 0
        with suppress(ConnectionResetError):
            while part := client.recv(1 << 20):
                read += len(part)
        assert 0 < read < 15_000_000


def test_the_next_request_on_a_connection_is_its_own(gateway: RunningGateway) -> None:
    """A body that contains a request is a body."""
    inner = head(2) + b"{}"
    with connect(gateway) as client:
        client.sendall(head(len(inner)) + inner)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 400 ")
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(65536)


def test_words_of_the_model_are_never_events(gateway: RunningGateway) -> None:
    """The mock says 'data: [DONE]' with line ends and '"usage":' among its words."""
    answer = gateway.post(chat(tokens=8)).text
    assert answer.count("\n\ndata: [DONE]\n\n") == 1
    said = [
        json.loads(line[6:])["choices"][0]["delta"]["content"] for line in answer.split("\n\n")[:8]
    ]
    assert " data: [DONE]\n\n" in said
    assert ',"usage":{}}' in said


def test_no_orphan_keeps_the_port(own_gateway: RunningGateway) -> None:
    """granian's parent process is killed; the worker that serves must not live on."""
    own_gateway.process.kill()
    own_gateway.process.wait(10)
    until(lambda: not _listens(own_gateway), 20)


def _listens(gateway: RunningGateway) -> bool:
    try:
        connect(gateway).close()
    except ConnectionRefusedError:
        return False
    return True
