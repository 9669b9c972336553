"""The shape of streams, compared byte for byte with what the upstream says when asked directly."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from gateway_parts import ADA, RunningGateway, until
from scripted_upstream import MODEL, WORDS, Script, ScriptedUpstream

AUTH = {"Authorization": f"Bearer {ADA}"}


def chat(script: Script, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": str(script)}]
    return {"model": MODEL, "messages": messages, "stream": True} | more


@pytest.mark.parametrize(
    "options",
    [
        None,
        {"include_usage": False},
        {"include_usage": True},
        {"include_usage": True, "continuous_usage_stats": True},
    ],
)
@pytest.mark.parametrize("more", [{}, {"logprobs": True}, {"n": 3}])
def test_the_client_gets_exactly_the_stream_it_asked_for(
    gateway: RunningGateway, upstream: ScriptedUpstream, options: Any, more: dict[str, Any]
) -> None:
    body = chat(Script(tokens=8), stream_options=options, **more)
    direct = httpx.post(f"{upstream.url}/v1/chat/completions", json=body).content
    assert gateway.post(body).content == direct
    asked = upstream.requests[-1].body["stream_options"]
    assert asked == {"include_usage": True, "continuous_usage_stats": True}


def test_several_prompts_stream_too(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = {"model": MODEL, "prompt": ["a", "b"], "n": 2, "stream": True}
    direct = httpx.post(f"{upstream.url}/v1/completions", json=body).content
    assert gateway.post(body, "/v1/completions").content == direct
    row = gateway.rows(1)[0]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (14, 16)


def test_each_event_passes_as_it_comes(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    body = chat(Script(tokens=5, delay=0.05, hang_after=3))
    with httpx.stream(
        "POST", f"{gateway.url}/v1/chat/completions", json=body, headers=AUTH
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "x-smg-worker" not in answer.headers
        lines = (line for line in answer.iter_lines() if line)
        said = [json.loads(next(lines)[6:])["choices"][0]["delta"]["content"] for _ in range(3)]
        assert said == WORDS[:3]
        assert upstream.active == 1  # it hangs after the third: none of them waited for a fourth
    until(lambda: upstream.active == 0)


def test_comments_pass_within_a_stream(gateway: RunningGateway) -> None:
    text = gateway.post(chat(Script(tokens=3, delay=0.05, comment=True))).text
    assert text.count(": keep-alive\n\n") == 2  # the one before the first token opens nothing
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("fault", ["crash_after", "balancer_crash_after", "done_after"])
def test_a_broken_stream_ends_with_an_error_and_no_done(
    gateway: RunningGateway, upstream: ScriptedUpstream, fault: str
) -> None:
    # With log probabilities it cannot be resumed.
    answer = gateway.post(chat(Script(tokens=6, **{fault: 2}), logprobs=True))
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text.replace("data: [DONE]\\n", "")
    events = [line for line in answer.text.split("\n\n") if line]
    assert len(events) == 3
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("stream_interrupted", "server_error")
    assert "10.0.0.9" not in answer.text
    assert answer.headers["x-request-id"] in error["message"]
    row = gateway.rows(1)[0]
    assert (row["state"], row["status"], row["completion_tokens"]) == ("error", 200, 2)
    assert row["request_id"] == answer.headers["x-request-id"]
    assert len(upstream.requests) == 1  # never asked a second time


@pytest.mark.parametrize("fault", ["crash_after", "balancer_crash_after", "done_after"])
def test_a_stream_that_breaks_before_its_first_token_is_a_plain_error(
    gateway: RunningGateway, fault: str
) -> None:
    answer = gateway.post(chat(Script(**{fault: 0})))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_error"
    assert gateway.rows(1)[0]["state"] == "error"


def test_what_is_no_stream_is_an_error(gateway: RunningGateway) -> None:
    assert gateway.post(chat(Script(raw="<html>"))).status_code == 502
    whole = chat(Script(raw="<html>")) | {"stream": False}
    assert gateway.post(whole).status_code == 502


def test_a_refusal_that_quotes_the_request_is_told_to_the_client_alone(
    gateway: RunningGateway,
) -> None:
    quoting = {"error": {"message": "wrong input: 'my own secret'", "type": "Bad", "code": 400}}
    answer = gateway.post(chat(Script(status=400, error=quoting)))
    assert answer.json()["error"]["message"] == "wrong input: 'my own secret'"
    broken = {"error": {"message": "no such kernel", "type": "Internal", "code": 500}}
    assert gateway.post(chat(Script(status=500, error=broken))).status_code == 502
    until(lambda: "no such kernel" in gateway.log())
    assert "my own secret" not in gateway.log()


def test_an_answer_that_is_no_stream_has_a_largest_size(gateway: RunningGateway) -> None:
    answer = gateway.post(chat(Script(raw="1" * 1024, raw_times=129 << 10)) | {"stream": False})
    assert "larger than 128 MiB" in answer.json()["error"]["message"]
