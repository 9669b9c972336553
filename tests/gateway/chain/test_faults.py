"""Upstreams that are down, slow, refuse or say too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import ADA, RunningGateway, free_port, run_gateway
from scripted_upstream import MODEL, Script, ScriptedUpstream

if TYPE_CHECKING:
    from pathlib import Path


def chat(*, stream: bool = False, **script: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": str(Script(**script))}]
    return {"model": MODEL, "messages": messages, "stream": stream}


@pytest.mark.parametrize("stream", [True, False])
def test_an_upstream_that_is_down_is_503(tmp_path: Path, *, stream: bool) -> None:
    with run_gateway(tmp_path, f"http://127.0.0.1:{free_port()}") as gateway:
        answer = gateway.post(chat(stream=stream))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unavailable"
        assert answer.headers["retry-after"] == "5"
        assert gateway.rows(1)[0]["status"] == 503


def test_one_that_comes_back_serves_at_once(tmp_path: Path) -> None:
    port = free_port()
    with run_gateway(tmp_path, f"http://127.0.0.1:{port}") as gateway:
        assert gateway.post(chat()).status_code == 503
        with ScriptedUpstream(port):
            assert gateway.post(chat()).status_code == 200
        assert gateway.post(chat()).status_code == 503
        with ScriptedUpstream(port):
            assert gateway.post(chat()).status_code == 200


@pytest.mark.parametrize(
    "script", [{"head_delay": 30}, {"hang_after": 0}], ids=["no head", "no token"]
)
def test_an_upstream_that_is_too_slow_is_504(
    tmp_path: Path, upstream: ScriptedUpstream, script: dict[str, Any]
) -> None:
    limits = {"first_byte_seconds": 0.5, "idle_seconds": 0.5}
    with run_gateway(tmp_path, upstream.url, limits=limits) as gateway:
        answer = gateway.post(chat(stream=True, **script))
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "upstream_timeout"
        assert upstream.active == 0
        # With log probabilities it cannot be resumed.
        stalled = gateway.post(chat(stream=True, tokens=9, hang_after=2) | {"logprobs": True})
        assert stalled.status_code == 200
        assert "stream_interrupted" in stalled.text
        assert not stalled.text.endswith("[DONE]\n\n")
        rows = gateway.rows(2)
        assert [row["state"] for row in rows] == ["error", "error"]
        assert rows[1]["completion_tokens"] == 2


VLLM = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
SMG = {"error": {"message": "No worker http://10.0.0.9", "code": "model_not_found", "type": "x"}}
SMG_DOWN = {"error": {"message": "http://10.0.0.9", "code": "call_upstream_connection_failed"}}


@pytest.mark.parametrize(
    ("status", "error", "told", "code"),
    [
        (400, VLLM, 400, "invalid_request"),
        (422, {"detail": "no"}, 400, "invalid_request"),
        (413, "no JSON object", 400, "invalid_request"),
        (401, VLLM, 502, "upstream_error"),
        (403, VLLM, 502, "upstream_error"),
        (404, SMG, 503, "model_unavailable"),
        (404, {"detail": "Not Found"}, 400, "unsupported_endpoint"),
        (429, VLLM, 429, "upstream_busy"),
        (500, SMG_DOWN, 503, "upstream_unavailable"),
        (500, SMG, 502, "upstream_error"),
        (503, SMG, 503, "upstream_unavailable"),
        (504, SMG, 504, "upstream_timeout"),
        (302, SMG, 502, "upstream_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_refusals_are_told_in_our_words(  # noqa: PLR0913  # a table has its columns
    gateway: RunningGateway, status: int, error: Any, told: int, code: str, *, stream: bool
) -> None:
    answer = gateway.post(chat(stream=stream, status=status, error=error))
    assert (answer.status_code, answer.json()["error"]["code"]) == (told, code)
    assert "10.0.0.9" not in answer.text
    if error is VLLM and told == 400:
        assert answer.json()["error"]["message"] == "too long"


def test_nothing_internal_reaches_the_upstream_or_the_client(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    hostile = {
        "X-Smg-Routing-Key": "x",
        "X-Request-Priority": "high",
        "X-Request-Id": "mine",
        "X-Data-Parallel-Rank": "1",
        "Cookie": "a=b",
        "Connection": "keep-alive, x-hop",
        "X-Hop": "1",
        "Forwarded": "for=1.2.3.4",
    }
    body = chat() | {"priority": -9, "cache_salt": "s", "kv_transfer_params": {"remote_host": "x"}}
    answer = gateway.post(body, headers=hostile)
    assert answer.status_code == 200
    seen = upstream.requests[0]
    assert seen.headers.keys() <= {
        *("host", "content-type", "content-length", "accept", "accept-encoding"),
        *("user-agent", "x-request-id"),
    }
    assert seen.headers["x-request-id"] == answer.headers["x-request-id"] != "mine"
    assert ADA not in str(seen)
    assert "kv_transfer_params" not in seen.body
    assert seen.body.get("priority") != -9
    assert seen.body.get("cache_salt") != "s"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/invocations"),
        ("GET", "/metrics"),
        ("POST", "/tokenize"),
        ("GET", "/v1"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/holdfast/starter"),
        ("OPTIONS", "/v1/chat/completions"),
        ("GET", "/v1/files"),
        ("POST", "/healthz"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("POST", "/v1/load_lora_adapter"),
    ],
)
def test_other_routes_do_not_exist(
    gateway: RunningGateway, upstream: ScriptedUpstream, method: str, path: str
) -> None:
    headers = {"Authorization": f"Bearer {ADA}"}
    url = httpx.URL(gateway.url, raw_path=path.encode())
    answer = httpx.request(method, url, headers=headers)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in {"unknown_url", "model_not_found"}
    assert answer.headers["x-request-id"].startswith("req_")
    assert upstream.requests == []


def test_whether_it_is_well_is_not_told_to_those_the_edge_passes_on(
    gateway: RunningGateway,
) -> None:
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    passed_on = {"X-Forwarded-For": "198.18.1.3"}
    answer = httpx.get(f"{gateway.url}/healthz", headers=passed_on)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
