"""Where a stream can be gone on from: the points between tokens at which the text is whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, Call, parse
from holdfast_gateway.chain.resumption import MismatchError, Retelling, continuation, trace_of
from holdfast_gateway.chain.trace import Point, Trace

PROMPT = [11, 12, 13]


def said(
    trace: Trace, ids: list[int], text: str, *, first: bool = False, finish: str | None = None
) -> tuple[bytes, bool]:
    """Let a trace take an event as vLLM writes it for a chat; return what it makes of it."""
    choice = {
        "index": 0,
        "delta": {"content": text},
        "logprobs": None,
        "finish_reason": finish,
        "token_ids": ids,
    }
    event: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk"}
    event |= {"created": 7, "model": "m", "choices": [choice]}
    if first:
        event["prompt_token_ids"] = PROMPT
    usage = {"prompt_tokens": 3, "completion_tokens": trace.tokens + len(ids)}
    data = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
    return trace.take(data, usage)


def trace(**options: Any) -> Trace:
    begun = Trace(**options)
    said(begun, [], "", first=True)
    return begun


def test_ids_are_kept_and_leave_nulls_behind() -> None:
    kept = Trace()
    seen, says = said(kept, [21, 22], "ab", first=True)
    assert says
    told = json.loads(seen)
    assert (told["prompt_token_ids"], told["choices"][0]["token_ids"]) == (None, None)
    assert (kept.prompt_ids, kept.ids(9), kept.tokens) == (PROMPT, [21, 22], 2)
    assert kept.head == {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
    }


def test_text_that_looks_like_ids_is_text() -> None:
    kept = trace()
    seen, _ = said(kept, [21], '"token_ids":[1,2]')
    assert json.loads(seen)["choices"][0]["delta"]["content"] == '"token_ids":[1,2]'
    assert kept.ids(9) == [21]


def test_half_a_character_is_generated_again() -> None:
    kept = trace()
    said(kept, [21], "a")
    said(kept, [22], "")  # the first bytes of what is not yet a character
    said(kept, [23], "")
    assert kept.point() == Point(1, "")
    said(kept, [24], "😀")
    assert kept.point() == Point(4, "")


def test_several_tokens_at_once_may_end_in_half_a_character() -> None:
    greedy = trace(greedy=True)
    said(greedy, [21], "a")
    said(greedy, [22, 23], "bc")
    assert greedy.point() == Point(1, "bc")  # said again, compared, and not sent again
    sampled = trace()
    said(sampled, [21], "a")
    said(sampled, [22, 23], "bc")
    assert sampled.point() == Point(3, "")  # said again it would be something else


@pytest.mark.parametrize("greedy", [True, False])
def test_what_is_withheld_in_front_of_a_stop_string_is_generated_again(*, greedy: bool) -> None:
    """With a stop of three characters vLLM shows its text two characters late."""
    kept = trace(held=2, reach=2, greedy=greedy)
    for number, text in enumerate(["", "", "a", "b"]):
        said(kept, [21 + number], text)
    # Four characters were generated and two shown, none of them after a known token: so it begins
    # anew and compares, which only a greedy stream can.
    assert kept.point() == (Point(0, "ab") if greedy else None)
    said(kept, [25], "c")
    said(kept, [26], "d")
    # What is shown now is what was generated with the fourth token.
    assert kept.point() == Point(4, "")


def test_a_stop_string_that_is_shown_may_begin_before_the_point() -> None:
    kept = trace(held=0, reach=2, greedy=True)
    for number, text in enumerate("abcd"):
        said(kept, [21 + number], text)
    assert kept.point() == Point(2, "cd")


def test_going_on_twice_forgets_no_word() -> None:
    kept = trace(greedy=True)
    said(kept, [21], "a")
    said(kept, [22, 23], "bc")
    point = kept.point()
    assert point is not None
    kept.rewind(point)
    assert kept.ids(9) == [21]
    said(kept, [22, 23], "")  # said again: nothing new for the client
    assert kept.point() == Point(1, "bc")
    kept.rewind(Point(1, "bc"))
    said(kept, [22, 23, 24], "d")
    assert kept.point() == Point(1, "bcd")
    said(kept, [25], "e")
    assert kept.point() == Point(5, "")


def test_a_long_stream_keeps_little() -> None:
    kept = trace(greedy=True)
    for number in range(500):
        said(kept, [number, number], "ab")
    assert len(kept._unsure) < 100
    assert kept.point() == Point(1000, "")


@pytest.mark.parametrize(
    ("usage", "delta"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, b'"delta":{"content":"x"}'),
        ({"prompt_tokens": 4, "completion_tokens": 1}, b'"delta":{"content":"x"}'),
        ({}, b'"delta":{"content":"x"}'),
        ({"prompt_tokens": 3, "completion_tokens": 1}, b'"delta":{"reasoning":"x"}'),
        ({"prompt_tokens": 3, "completion_tokens": 1}, b'"delta":{}'),
        ({"prompt_tokens": 3, "completion_tokens": 1}, b'"delta":{"tool_calls":[]}'),
    ],
)
def test_what_is_not_known_to_the_token_is_not_gone_on_from(
    usage: dict[str, int], delta: bytes
) -> None:
    kept = trace()
    kept.take(b'{"choices":[{%s,"finish_reason":null,"token_ids":[5]}]}' % delta, usage)
    assert kept.point() is None


def test_events_that_are_there_for_their_ids_alone_are_not_passed_on() -> None:
    kept = trace()
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    event = b'{"choices":[{"delta":{},"finish_reason":%s,"token_ids":[5]}]}'
    assert not kept.take(event % b"null", usage)[1]
    assert kept.take(event % b'"stop"', usage)[1]


def call(path: str = CHAT, **body: Any) -> Call:
    asked = (
        {"prompt": "x"} if path == COMPLETIONS else {"messages": [{"role": "user", "content": "x"}]}
    )
    return parse(path, json.dumps({"model": "m", "stream": True} | asked | body).encode())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"temperature": 0, "tools": None, "logprobs": False, "n": 1, "presence_penalty": 0.0},
        {"response_format": {"type": "text"}, "stop": ["a", "b"], "metadata": {"a": "b"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
    ],
)
def test_plain_text_can_be_gone_on_with(body: dict[str, Any]) -> None:
    assert trace_of(call(**body)) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"stream": False},
        {"prompt": ["x"]},
        {"logprobs": 0},
        {"echo": True},
        {"suffix": "y"},
        {"stop": [1]},
    ],
)
def test_other_completions_cannot(more: dict[str, Any]) -> None:
    assert trace_of(call(COMPLETIONS)) is not None
    assert trace_of(call(COMPLETIONS, **more)) is None


def test_steering_goes_along_and_bounds_count() -> None:
    kept = trace()
    said(kept, [21], "a")
    steering = {"priority": 3, "cache_salt": "s", "max_completion_tokens": 40}
    body = continuation(call(seed=1), kept, Point(1, ""), steering)
    assert (body["priority"], body["cache_salt"], body["max_tokens"]) == (3, "s", 39)
    assert body["kv_transfer_params"] == {"prompt_token_ids": [*PROMPT, 21]}
    assert body["seed"] == 1
    assert "max_completion_tokens" not in body


def begin(retelling: Retelling, prompt: list[int]) -> None:
    """Let it take how vLLM begins each chat."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    event = {"id": "x", "choices": [choice], "usage": usage, "prompt_token_ids": prompt}
    assert retelling.retell(json.dumps(event).encode()) == (None, False)


def retell(retelling: Retelling, text: str, ids: list[int], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "token_ids": ids}
    usage = {"prompt_tokens": 4, "completion_tokens": len(ids)}
    event = {"id": "x", "choices": [choice], "usage": usage}
    retold, _ = retelling.retell(json.dumps(event).encode())
    assert retold is not None
    told = json.loads(retold)
    assert told["id"] == "chatcmpl-1"
    return str(told["choices"][0]["delta"]["content"])


def test_what_is_said_again_is_compared_and_left_out() -> None:
    kept = trace(greedy=True)
    retelling = Retelling(call(), kept, Point(1, "bcd"))
    begin(retelling, PROMPT)
    assert [retell(retelling, text, [5]) for text in ("b", "cde", "f")] == ["", "e", "f"]


@pytest.mark.parametrize(
    ("text", "ids", "finish"),
    [("bX", [5], None), ("b", [5], "stop"), ("b" * 600, [5], None)],
    ids=["other words", "an earlier end", "the whole prompt"],
)
def test_other_words_are_an_error(text: str, ids: list[int], finish: str | None) -> None:
    known = "" if len(text) > 2 else "bc"
    retelling = Retelling(call(), trace(greedy=True), Point(1, known))
    begin(retelling, PROMPT)
    with pytest.raises(MismatchError):
        retell(retelling, text, ids, finish)


def test_a_server_that_did_not_take_the_ids_is_not_listened_to() -> None:
    """Should vLLM one day read the empty message instead, nothing of it reaches the client."""
    with pytest.raises(MismatchError):
        begin(Retelling(call(), trace(), Point(0, "")), [1])
    with pytest.raises(MismatchError):
        retell(Retelling(call(), trace(), Point(0, "")), "x", [5])
