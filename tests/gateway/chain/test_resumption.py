"""A replica that dies in mid-stream: what the client sees is what it would have seen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import RunningGateway, run_gateway
from scripted_upstream import MODEL, PROMPT_TOKENS, WORDS, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
LIMITS = {"ttft_seconds": 1, "stall_seconds": 0.4, "idle_seconds": 3}


@pytest.fixture(scope="module")
def shared_gateway(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: ScriptedUpstream
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with run_gateway(folder, shared_upstream.url, limits=LIMITS) as running:
        yield running


def asking(path: str, script: Script, **more: Any) -> dict[str, Any]:
    if path == COMPLETIONS:
        asked: dict[str, Any] = {"prompt": str(script), "max_tokens": 100}
    else:
        asked = {"messages": [{"role": "user", "content": str(script)}]}
    return {"model": MODEL, "stream": True} | asked | more


def undisturbed(upstream: ScriptedUpstream, path: str, tokens: int, **more: Any) -> list[Any]:
    body = asking(path, Script(tokens=tokens), **more)
    events = events_of(httpx.post(upstream.url + path, json=body))
    if more.get("stream_options"):
        # How much of its prompt was cached died with the first replica.
        events[-2]["usage"].pop("prompt_tokens_details")
    return events


def events_of(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


FAULTS: list[dict[str, Any]] = [
    {"crash_after": 1},
    {"crash_after": 5},
    {"balancer_crash_after": 5},
    {"done_after": 5},
    {"hang_after": 5},
    {"murmur_after": 5},
    {"crash_after": 2, "crash_again_after": 6},
]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_client_sees_nothing_of_it(
    gateway: RunningGateway, upstream: ScriptedUpstream, path: str, fault: dict[str, Any]
) -> None:
    answer = gateway.post(asking(path, Script(tokens=11, delay=0.01, **fault)), path)
    assert events_of(answer) == undisturbed(upstream, path, 11)
    row = gateway.rows(1)[0]
    assert (row["state"], row["prompt_tokens"], row["completion_tokens"]) == ("done", 7, 11)
    assert row["attempts"] == (3 if "crash_again_after" in fault else 2)
    assert upstream.active == 0


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_usage_is_said_once_and_of_the_whole(
    gateway: RunningGateway, upstream: ScriptedUpstream, path: str, *, continuous: bool
) -> None:
    options = {"include_usage": True, "continuous_usage_stats": continuous}
    script = Script(tokens=11, crash_after=5, crash_again_after=9)
    answer = gateway.post(asking(path, script, stream_options=options), path)
    assert events_of(answer) == undisturbed(upstream, path, 11, stream_options=options)


@pytest.mark.parametrize("include_usage", [True, False])
def test_nothing_is_missing_but_the_sum(
    gateway: RunningGateway, upstream: ScriptedUpstream, *, include_usage: bool
) -> None:
    options = {"include_usage": include_usage}
    body = asking(CHAT, Script(tokens=4, crash_after=4), stream_options=options)
    events = events_of(gateway.post(body))
    assert events[:4] == undisturbed(upstream, CHAT, 4)[:4]
    usage = {"prompt_tokens": 7, "total_tokens": 11, "completion_tokens": 4}
    assert [each["usage"] for each in events[4:-1]] == [usage] * include_usage
    assert events[-1] == "[DONE]"
    assert len(upstream.requests) == 2  # of which one is ours, asked directly
    assert gateway.rows(1)[0]["completion_tokens"] == 4


def test_the_rest_is_asked_for_with_the_same_parameters(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    sampling = {
        "temperature": 0,
        "seed": 5,
        "logit_bias": {"5": -3},
        "repetition_penalty": 1.2,
        "stop": None,
        "ignore_eos": True,
    }
    more = sampling | {"max_completion_tokens": 50, "max_tokens": 60, "min_tokens": 9}
    gateway.post(asking(CHAT, Script(tokens=11, crash_after=5), **more))
    first, rest = (seen.body for seen in upstream.requests)
    assert first["return_token_ids"] is True
    assert sampling.items() <= rest.items()
    assert (rest["max_tokens"], rest["min_tokens"]) == (45, 4)
    assert "max_completion_tokens" not in rest
    ids = rest["kv_transfer_params"]["prompt_token_ids"]
    assert len(ids) == PROMPT_TOKENS + 5
    assert rest["cache_salt"] == first["cache_salt"]


def test_without_a_bound_there_is_none_afterwards(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    gateway.post(asking(CHAT, Script(tokens=11, crash_after=5)))
    assert "max_tokens" not in upstream.requests[1].body
    gateway.post(
        asking(COMPLETIONS, Script(tokens=11, crash_after=5), max_tokens=None), COMPLETIONS
    )
    assert upstream.requests[3].body["max_tokens"] == 16 - 5


def test_an_answer_as_long_as_it_may_be_ends_there(gateway: RunningGateway) -> None:
    body = asking(COMPLETIONS, Script(tokens=11, crash_after=5), max_tokens=8)
    events = events_of(gateway.post(body, COMPLETIONS))
    assert "".join(each["choices"][0]["text"] for each in events[:-1]) == "".join(WORDS[:8])


def test_who_asks_for_token_ids_gets_them(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    body = asking(CHAT, Script(tokens=11, crash_after=5), return_token_ids=True)
    expected = undisturbed(upstream, CHAT, 11, return_token_ids=True)
    events = events_of(gateway.post(body))
    expected[0]["prompt_token_ids"] = events[0]["prompt_token_ids"]  # they name the fault
    assert events == expected


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": True},
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"presence_penalty": 0.5},
        {"reasoning_effort": "low"},
        {"bad_words": ["x"]},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_what_would_not_be_exact_is_a_clean_error(
    gateway: RunningGateway, upstream: ScriptedUpstream, more: dict[str, Any]
) -> None:
    events = events_of(gateway.post(asking(CHAT, Script(tokens=11, crash_after=5), **more)))
    assert events[-1]["error"]["code"] == "stream_interrupted"
    assert "[DONE]" not in events
    assert len(upstream.requests) == 1
    assert "return_token_ids" not in upstream.requests[0].body
    assert gateway.rows(1)[0]["error_code"] == "stream_interrupted"


def test_pictures_are_not_gone_on_with(gateway: RunningGateway) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    earlier = {"role": "user", "content": [picture]}
    body = asking(CHAT, Script(tokens=11, crash_after=5))
    body["messages"].insert(0, earlier)
    assert events_of(gateway.post(body))[-1]["error"]["code"] == "stream_interrupted"


def test_it_is_tried_three_times(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    script = Script(tokens=11, crash_after=5, crash_again_after=5)
    events = events_of(gateway.post(asking(CHAT, script)))
    assert len(events) == 6
    assert events[-1]["error"]["code"] == "stream_interrupted"
    # Each of the three finds its replica dead before it said anything, and asks one more.
    assert 4 <= len(upstream.requests) <= 7
    row = gateway.rows(1)[0]
    assert (row["state"], row["completion_tokens"]) == ("error", 5)


def test_a_stream_that_stands_still_but_cannot_be_resumed_has_time(
    gateway: RunningGateway,
) -> None:
    script = Script(tokens=3, delay=0.7)
    events = events_of(gateway.post(asking(CHAT, script, logprobs=True)))
    assert events[-1] == "[DONE]"
