"""Every refusal in the shape of the API that was spoken, whole and in mid-stream, and counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import ADA, OTHERS, RunningGateway, until
from scripted_upstream import CACHED_TOKENS, MODEL, PROMPT_TOKENS, WORDS, Script, ScriptedUpstream

from holdfast_gateway.api.endpoints import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
    Shape,
    shape_of,
)
from holdfast_gateway.api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

BEARER = {"Authorization": f"Bearer {ADA}"}
TYPED = [RESPONSES, MESSAGES]


def body(endpoint: str, **script: Any) -> dict[str, Any]:
    text = str(Script(**script))
    said: Any = [{"role": "user", "content": text}] if ENDPOINTS[endpoint].messages else text
    bound = {"max_tokens": 9} if endpoint == MESSAGES else {}
    return {"model": MODEL, ENDPOINTS[endpoint].input: said, **bound}


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """Return status, type or code, and the message; fail when the shape is not the path's."""
    assert answer.headers["content-type"] == "application/json"
    request_id = answer.headers["x-request-id"]
    said = answer.json()
    path = answer.request.url.path
    if shape_of(path, answer.request.headers) is Shape.ANTHROPIC:
        assert set(said) == {"type", "error", "request_id"}
        assert (said["type"], said["request_id"]) == ("error", request_id)
        assert set(said["error"]) == {"type", "message"}
        if path.startswith(MESSAGES):
            assert answer.headers["request-id"] == request_id
        return answer.status_code, said["error"]["type"], said["error"]["message"]
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, said["error"]["code"], said["error"]["message"]


@pytest.mark.parametrize("endpoint", sorted(ENDPOINTS))
def test_refusals_before_an_answer(
    gateway: RunningGateway, upstream: ScriptedUpstream, endpoint: str
) -> None:
    anthropic = ENDPOINTS[endpoint].shape is Shape.ANTHROPIC
    sent = body(endpoint)
    cases: list[tuple[bytes, dict[str, str], int, str, str]] = [
        (b"{", {}, 400, "invalid_request_error", "invalid_json"),
        (b'{"model":"m"}', {}, 400, "invalid_request_error", "missing_required_parameter"),
        (b"{}", {"Authorization": "Bearer x"}, 401, "authentication_error", "invalid_api_key"),
        (b"{}", {"Authorization": ""}, 401, "authentication_error", "invalid_api_key"),
        (
            json.dumps(sent | {"model": OTHERS}).encode(),
            {},
            404,
            "not_found_error",
            "model_not_found",
        ),
        (
            json.dumps(sent).encode(),
            {"OpenAI-Organization": "press"},
            403,
            "permission_error",
            "not_your_team",
        ),
        (
            json.dumps(sent).encode(),
            {"X-Session-Id": "x" * 200},
            400,
            "invalid_request_error",
            "invalid_value",
        ),
    ]
    for content, headers, status, kind, code in cases:
        answer = gateway.post(content, endpoint, headers=headers)
        assert told(answer)[:2] == (status, kind if anthropic else code)
    assert upstream.requests == []


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS])
@pytest.mark.parametrize(
    ("replica", "seen"),
    [
        ((400, {"message": "x", "type": "y"}), (400, "invalid_request_error", "invalid_request")),
        ((429, {"message": "x"}), (429, "rate_limit_error", "upstream_busy")),
        ((500, {"message": "10.0.0.9"}), (502, "api_error", "upstream_error")),
        ((501, {"message": "no model"}), (400, "invalid_request_error", "unsupported_endpoint")),
        ((404, {"detail": "x"}), (400, "invalid_request_error", "unsupported_endpoint")),
        ((404, {"message": "no such model"}), (503, "overloaded_error", "model_unavailable")),
    ],
)
def test_refusals_of_a_replica(
    gateway: RunningGateway,
    endpoint: str,
    replica: tuple[int, Mapping[str, str]],
    seen: tuple[int, str, str],
) -> None:
    status, error = replica
    shape = ENDPOINTS[endpoint].shape
    said = {"type": "error", "error": error} if shape is Shape.ANTHROPIC else {"error": error}
    answer = gateway.post(body(endpoint, status=status, error=said), endpoint)
    expected, kind, code = seen
    assert told(answer)[:2] == (expected, kind if shape is Shape.ANTHROPIC else code)
    assert "10.0.0.9" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", MESSAGES, {}),
        ("POST", f"{MESSAGES}/batches", {}),
        ("GET", RESPONSES, {}),
        ("GET", f"{RESPONSES}/resp_1", {}),
        ("DELETE", f"{RESPONSES}/resp_1", {}),
        ("POST", f"{RESPONSES}/resp_1/cancel", {}),
        ("GET", f"{RESPONSES}/resp_1/input_items", {}),
        ("POST", "/v1/conversations", {}),
        ("GET", "/v1/models/nothing", {"anthropic-version": "2023-06-01"}),
        ("GET", "/nowhere", {"anthropic-version": "2023-06-01"}),
    ],
)
def test_what_is_not_there(
    gateway: RunningGateway, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(method, gateway.url + path, headers=BEARER | headers)
    anthropic = path.startswith(MESSAGES) or bool(headers)
    kind = "not_found_error" if anthropic else "unknown_url"
    assert told(answer)[:2] == (404, kind)


def test_an_x_api_key_opens_anthropics_api_alone(gateway: RunningGateway) -> None:
    key = {"x-api-key": ADA}
    for endpoint, status in ((MESSAGES, 200), (COUNT_TOKENS, 200), (CHAT, 401), (RESPONSES, 401)):
        answer = httpx.post(gateway.url + endpoint, json=body(endpoint), headers=key)
        assert answer.status_code == status, endpoint
    versioned = key | {"anthropic-version": "2023-06-01"}
    assert httpx.get(f"{gateway.url}/v1/models", headers=key).status_code == 401
    assert httpx.get(f"{gateway.url}/v1/models", headers=versioned).status_code == 200
    both = key | {"Authorization": "Bearer wrong"}
    assert httpx.post(gateway.url + MESSAGES, json=body(MESSAGES), headers=both).status_code == 401


@pytest.mark.parametrize("endpoint", TYPED)
def test_whole_and_streamed_answers_are_counted_alike(
    gateway: RunningGateway, endpoint: str
) -> None:
    gateway.post(body(endpoint), endpoint)
    gateway.post(body(endpoint) | {"stream": True}, endpoint)
    for row in gateway.rows(2):
        counted = (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
        assert counted == (PROMPT_TOKENS, CACHED_TOKENS, 4)
        assert (row["state"], row["status"], row["endpoint"]) == ("done", 200, endpoint)
    assert [row["ttft_ms"] is None for row in gateway.rows(2)] == [True, False]


@pytest.mark.parametrize("endpoint", TYPED)
@pytest.mark.parametrize(
    "fault", [{"crash_after": 2}, {"balancer_crash_after": 2}, {"done_after": 2}]
)
def test_a_broken_stream_ends_in_the_words_of_its_api(
    gateway: RunningGateway, endpoint: str, fault: dict[str, int]
) -> None:
    answer = gateway.post(body(endpoint, **fault) | {"stream": True}, endpoint)
    assert answer.status_code == 200
    *events, last, rest = answer.text.split("\n\n")
    assert rest == ""
    assert all(event.startswith("event: ") for event in events)
    assert "[DONE]" not in answer.text
    assert "10.0.0.9" not in answer.text
    name, _, data = last.partition("\n")
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert error["type"] == "error"
    if endpoint == MESSAGES:
        assert error["error"]["type"] == "api_error"
        assert error["request_id"] == answer.headers["x-request-id"]
    else:
        assert error["code"] == error["error"]["code"] == "stream_interrupted"
        assert "response.completed" not in answer.text
    row = gateway.rows(1)[0]
    assert (row["state"], row["completion_tokens"]) == ("error", 2)
    assert row["prompt_tokens"] == (PROMPT_TOKENS if endpoint == MESSAGES else None)


@pytest.mark.parametrize("endpoint", TYPED)
def test_a_failure_before_the_first_event_is_a_plain_error(
    gateway: RunningGateway, endpoint: str
) -> None:
    answer = gateway.post(body(endpoint, raw="x") | {"stream": True}, endpoint)
    status, kind, _ = told(answer)
    assert status in {502, 503}
    assert kind in {"api_error", "overloaded_error", "upstream_error", "upstream_unavailable"}


@pytest.mark.parametrize("endpoint", TYPED)
def test_words_of_the_model_are_never_events(gateway: RunningGateway, endpoint: str) -> None:
    """The mock says 'data: [DONE]' with line ends and '"usage":' among its words."""
    answer = gateway.post(body(endpoint, tokens=8) | {"stream": True}, endpoint).text
    events = [event.split("\n") for event in answer.split("\n\n")[:-1]]
    assert all(len(lines) == 2 for lines in events)
    named = [(lines[0], json.loads(lines[1].removeprefix("data: "))) for lines in events]
    assert all(name == f"event: {data['type']}" for name, data in named)
    said = [
        data["delta"] if endpoint == RESPONSES else data["delta"]["text"]
        for name, data in named
        if name in {"event: response.output_text.delta", "event: content_block_delta"}
    ]
    assert said == WORDS


@pytest.mark.parametrize("endpoint", TYPED)
def test_who_goes_away_frees_the_replica(
    gateway: RunningGateway, upstream: ScriptedUpstream, endpoint: str
) -> None:
    sent = body(endpoint, tokens=10_000, delay=0.01) | {"stream": True}
    with httpx.stream("POST", gateway.url + endpoint, json=sent, headers=BEARER) as answer:
        for line in answer.iter_lines():
            if "delta" in line:
                break
    until(lambda: upstream.active == 0)
    row = gateway.rows(1)[0]
    assert row["state"] == "aborted"
    assert row["completion_tokens"] >= 1


def test_who_is_cut_off_by_a_shutdown_is_told_in_the_words_of_the_api(
    own_gateway: RunningGateway,
) -> None:
    sent = body(MESSAGES, tokens=10_000, delay=0.01) | {"stream": True}
    url = own_gateway.url + MESSAGES
    with httpx.stream("POST", url, json=sent, headers=BEARER, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        own_gateway.process.terminate()
        *_, name, data, blank = lines
    assert (name, blank) == ("event: error", "")
    error = json.loads(data.removeprefix("data: "))
    assert error["error"]["type"] == "overloaded_error"
    assert error["request_id"] == answer.headers["request-id"]


def test_every_status_has_a_type_of_anthropics() -> None:
    kinds = {
        status: json.loads(ApiError(status, "x", code="x").body(Shape.ANTHROPIC))["error"]["type"]
        for status in (400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504)
    }
    assert kinds == {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        408: "invalid_request_error",
        413: "request_too_large",
        429: "rate_limit_error",
        500: "api_error",
        502: "api_error",
        503: "overloaded_error",
        504: "timeout_error",
    }


def test_embeddings_keep_their_shape(gateway: RunningGateway) -> None:
    assert gateway.post(body(EMBEDDINGS), EMBEDDINGS).json()["object"] == "list"
