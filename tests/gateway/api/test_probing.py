"""Strangers and guests who look for another way in: paths, methods, framings, headers, tokens."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import ADA, RunningGateway
from scripted_upstream import MODEL, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterable

AUTH = f"Authorization: Bearer {ADA}\r\n"
# What vLLM and smg answer to, and some of it to anybody: kept from clients by not being routed.
INSIDE = [
    *(
        "/invocations",
        "/ping",
        "/metrics",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/health",
    ),
    *("/load", "/version", "/server_info", "/pooling", "/classify", "/score", "/rerank"),
    *("/v1/score", "/v1/rerank", "/v2/rerank", "/v2/embed", "/v1/audio/transcriptions"),
    *("/inference/v1/generate", "/scale_elastic_ep", "/is_sleeping", "/sleep", "/wake_up"),
    *("/reset_prefix_cache", "/collective_rpc", "/start_profile", "/stop_profile", "/pause"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/abort_requests", "/v1/systemone"),
    *("/v1/chat/completions/render", "/v1/completions/render", "/v1/responses/render"),
    *("/v1/messages/render", "/v1/chat/completions/batch", "/generative_scoring"),
    *("/workers", "/readiness", "/liveness", "/flush_cache", "/get_loads", "/v1/conversations"),
    *("/v1/files", "/v1/batches", "/v1/realtime", "/parse/reasoning", "/wasm", "/ha/status"),
    *("/docs", "/openapi.json", "/redoc", "/"),
]
DISGUISED = [
    *("/v1/../metrics", "/v1/chat/../../metrics", "/v1/models/../../metrics"),
    *("//metrics", "/v1//chat/completions", "//v1/chat/completions", "/v1/chat/completions/"),
    *("/v1/%2e%2e/metrics", "/v1%2f..%2fmetrics", "/v1/chat%2fcompletions", "/%76%31/metrics"),
    *("/v1/chat/completions%00", "/v1/chat/completions%0d%0aX: y", "/v1/chat/completions;x"),
    *("/V1/CHAT/COMPLETIONS", "/v1/chat\\completions", "/v1/chat/completions%20"),
    *("/v1/chat/completions/../../../metrics", "/./metrics", "/v1/./chat/completions"),
    "*",
]
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}]}).encode()


def exchange(gateway: RunningGateway, *parts: bytes, seconds: float = 2) -> bytes:
    """Send bytes as they are; return all that comes back until the line is closed or silent."""
    answer = b""
    host, _, port = gateway.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as client:
        try:
            for part in parts:
                client.sendall(part)
            while block := client.recv(65536):
                answer += block
        except (TimeoutError, ConnectionError):
            pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def request(method: str, target: str, body: bytes = BODY, more: str = AUTH) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_inside_is_not_there(
    gateway: RunningGateway, upstream: ScriptedUpstream, method: str
) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {ADA}"}) as client:
        for path in INSIDE:
            answer = client.request(method, gateway.url + path, content=BODY)
            assert answer.status_code == 404, path
            assert answer.json()["error"]["message"].startswith("Unknown request URL"), path
    assert upstream.requests == []


def test_no_disguise_of_a_path_helps(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    for target in DISGUISED:
        answer = exchange(gateway, request("POST", target))
        assert all(status in {400, 404} for status in statuses(answer)), target
    assert upstream.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS"])
def test_only_post_asks(gateway: RunningGateway, upstream: ScriptedUpstream, method: str) -> None:
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        answer = exchange(gateway, request(method, path))
        assert statuses(answer) == [404]
        assert ADA.encode() not in answer  # TRACE
    assert upstream.requests == []


def test_odd_methods_do_no_harm(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    for method in ("CONNECT", "PRI", "FOO", "post", "A" * 5000):
        target = "x:80" if method == "CONNECT" else "/v1/chat/completions"
        answer = exchange(gateway, request(method, target))
        assert all(status in {400, 404, 405} for status in statuses(answer)), method
    assert upstream.requests == []


def test_a_whole_address_as_target_is_still_ours(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    """As a proxy would be asked: nothing is fetched from there."""
    for target in (f"{upstream.url}/metrics", "http://127.0.0.1:9/metrics", "http:///metrics"):
        answer = exchange(gateway, request("POST", target))
        assert all(status in {400, 404} for status in statuses(answer)), target
    assert upstream.requests == []


@pytest.mark.parametrize(
    "more",
    [
        "X-Forwarded-Host: evil\r\nX-Forwarded-Prefix: /metrics\r\nX-Original-URL: /metrics\r\n",
        "X-Rewrite-URL: /metrics\r\nX-HTTP-Method-Override: GET\r\n",
        "Host: 127.0.0.1:8400\r\n",
        "Forwarded: host=evil;proto=https\r\n",
        "X-SMG-Target-Worker: http://127.0.0.1:9\r\nX-Data-Parallel-Rank: 0\r\n",
        "X-Vllm-Priority: -1\r\nX-Session-ID: y\r\nX-Request-Id: chosen\r\n",
        "Traceparent: 00-0-0-00\r\nCookie: a=b\r\nOpenAI-Project: x\r\n",
    ],
)
def test_headers_reach_nobody(
    gateway: RunningGateway, upstream: ScriptedUpstream, more: str
) -> None:
    answer = exchange(gateway, request("POST", "/v1/chat/completions", more=AUTH + more))
    assert statuses(answer) in ([200], [400])  # granian may refuse a second Host
    for seen in upstream.requests:
        assert seen.path == "/v1/chat/completions"
        names = {"host", "content-type", "content-length", "accept", "accept-encoding"}
        names |= {"user-agent", "x-request-id"}
        assert seen.headers.keys() <= names
        assert seen.headers["x-request-id"].startswith("req_")


def chunked(body: bytes) -> bytes:
    return f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


SMUGGLED = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
START = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{AUTH}".encode()


@pytest.mark.parametrize(
    "sent",
    [
        START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        START + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + chunked(SMUGGLED),
        START + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked(BODY),
        START + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunked(BODY),
        START + b"Transfer-Encoding : chunked\r\n\r\n" + chunked(BODY),
        START + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + chunked(BODY),
        START + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + BODY,
        START + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + BODY,
        START + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
        START + b"Content-Length: 0x10\r\n\r\n" + BODY,
        START + b"Content-Length: %d, %d\r\n\r\n" % (len(BODY), len(BODY)) + BODY,
        START + b"Content-Length: 0\r\n\r\n" + SMUGGLED,
    ],
    ids=[
        *("length first", "chunked first", "unknown", "not last", "space", "tab"),
        *("huge chunk", "negative chunk", "plus", "hexadecimal", "list", "pipelined"),
    ],
)
def test_no_request_hides_in_another(
    gateway: RunningGateway, upstream: ScriptedUpstream, sent: bytes
) -> None:
    """Whatever is made of it, nobody is answered who brought no token, and nothing is 200."""
    answer = exchange(gateway, sent, seconds=1)
    assert all(status in {400, 401, 404, 411, 501} for status in statuses(answer)), answer[:200]
    assert len(statuses(answer)) <= 2
    assert upstream.requests == []


def test_a_query_changes_nothing(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    sent = request("POST", "/v1/chat/completions?api-version=1&path=/metrics")
    assert statuses(exchange(gateway, sent)) == [200]
    assert upstream.requests[0].path == "/v1/chat/completions"


def test_http_1_0_and_chunks_are_served(gateway: RunningGateway) -> None:
    old = request("POST", "/v1/chat/completions").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert exchange(gateway, old).split(b"\r\n", 1)[0].endswith(b"200 OK")
    head = START + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert statuses(exchange(gateway, head, chunked(BODY))) == [200]


def test_no_host_needed_no_host_believed(gateway: RunningGateway) -> None:
    sent = request("POST", "/v1/chat/completions")
    for host in (b"Host: evil.example\r\n", b"Host: \r\n", b"Host: [::1]:99999\r\n"):
        answer = exchange(gateway, sent.replace(b"Host: x\r\n", host, 1))
        assert b"evil" not in answer
        assert statuses(answer) in ([200], [400])


INJECTED = [
    "x\r\nX-Evil: 1",
    "x\nX-Evil: 1",
    "x\r\n\r\ndata: {}",
    "x\u2028y",
    "\x00",
    "x\x7f",
    "é\x85",
]


@pytest.mark.parametrize("value", INJECTED)
def test_names_with_line_ends_come_back_nowhere(
    gateway: RunningGateway, upstream: ScriptedUpstream, value: str
) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        sent = {"model": value, "messages": [], "input": "x", "max_tokens": 1}
        answer = gateway.post(sent, path)
        assert answer.status_code == 400
        assert "x-evil" not in answer.headers
        assert value not in answer.text
    assert upstream.requests == []


@pytest.mark.parametrize("header", ["X-Session-Id", "OpenAI-Organization", "X-Request-Id"])
def test_headers_with_controls_are_refused_or_ignored(gateway: RunningGateway, header: str) -> None:
    for value in (
        b"a\x00b",
        b"a\x7fb",
        b"a\tb",
        b"a\rb",
        b"a\nX-Evil: 1",
        b"\xff\xfe",
        b"\xc2\x85",
    ):
        head = request("POST", "/v1/chat/completions").replace(
            b"Host: x\r\n", b"Host: x\r\n" + header.encode() + b": " + value + b"\r\n", 1
        )
        answer = exchange(gateway, head)
        assert b"x-evil" not in answer.lower()
        assert all(status in {200, 400, 403} for status in statuses(answer)), value


def test_a_long_session_name_is_refused(gateway: RunningGateway) -> None:
    sent = json.loads(BODY)
    assert gateway.post(sent, headers={"X-Session-Id": "s" * 128}).status_code == 200
    assert gateway.post(sent, headers={"X-Session-Id": "s" * 129}).status_code == 400


def test_a_replica_that_injects_lines_is_read_as_one_that_failed(gateway: RunningGateway) -> None:
    """Text of a model is JSON; what stands outside of it was not said by one."""
    for raw in (
        'data: {"a":1}\n\nevent: message_stop\ndata: {}\n\n',
        "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ):
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
            said = str(Script(raw=raw))
            sent: dict[str, Any] = {"model": MODEL, "max_tokens": 1, "input": said}
            sent |= {"messages": [{"role": "user", "content": said}]}
            for stream in (False, True):
                answer = gateway.post(sent | {"stream": stream}, path)
                assert answer.status_code in {502, 503}
                assert "message_stop" not in answer.text


def test_guessing_tokens_finds_nothing_and_holds_up_nobody(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    """A thousand guesses: each is a 401 that says nothing, leaves nothing, and holds up nobody."""

    def guess(numbers: Iterable[int]) -> set[tuple[int, str]]:
        with httpx.Client() as client:
            return {
                (answer.status_code, answer.json()["error"]["code"])
                for number in numbers
                for answer in [
                    client.post(
                        f"{gateway.url}/v1/chat/completions",
                        content=BODY,
                        headers={"Authorization": f"Bearer {ADA[:-4]}{number:04}"},
                    )
                ]
            }

    guesses = [number for number in range(1000) if f"{number:04}" != ADA[-4:]]
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(guess, guesses[at::4]) for at in range(4)]
        slowest = 0.0
        while not all(each.done() for each in found):
            began = time.monotonic()
            assert gateway.post(json.loads(BODY)).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        assert set().union(*(each.result() for each in found)) == {(401, "invalid_api_key")}
    assert slowest < 2
    served = len(upstream.requests)
    assert {event["status"] for event in gateway.events(served)} == {200}
    assert ADA[:-4] not in gateway.log()
