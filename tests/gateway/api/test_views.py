"""Streams of the responses and the messages API, event by event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scripted_apis

from holdfast_gateway.api.calls import Call
from holdfast_gateway.api.endpoints import CHAT, MESSAGES, RESPONSES
from holdfast_gateway.api.usage import read_whole
from holdfast_gateway.api.views import MessagesView, ResponsesView, View, view_for
from holdfast_gateway.chain.sse import EventSplitter, data_of
from holdfast_gateway.metering.tokens import Tokens

WORDS = ["a", "b", "c"]


def events(endpoint: str) -> list[bytes]:
    body = {"model": "m"}
    return [
        json.dumps(event, separators=(",", ":")).encode()
        for _, event in scripted_apis.events(endpoint, body, WORDS, 10, 4)
    ]


def view(endpoint: str) -> View:
    return view_for(Call(endpoint, "m", {}, stream=True))


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
def test_a_whole_stream_passes_as_it_came(endpoint: str) -> None:
    reads = view(endpoint)
    assert not reads.ends_with_done
    for event in events(endpoint):
        assert not reads.complete
        assert reads.see(event) == event
        name = json.loads(event)["type"].encode()
        assert reads.frame(event) == b"event: " + name + b"\ndata: " + event + b"\n\n"
    assert reads.complete
    assert reads.tally.tokens == Tokens(10, 4, 3)


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
def test_every_place_to_break_off_is_noticed(endpoint: str) -> None:
    whole = events(endpoint)
    for at in range(len(whole)):
        reads = view(endpoint)
        for event in whole[:at]:
            reads.see(event)
        assert not reads.complete, at


@pytest.mark.parametrize(("endpoint", "prompt"), [(RESPONSES, None), (MESSAGES, 10)])
def test_what_is_known_of_a_stream_that_breaks(endpoint: str, prompt: int | None) -> None:
    reads = view(endpoint)
    for event in events(endpoint):
        reads.see(event)
        if b'"b"' in event:
            break
    assert reads.tally.tokens == Tokens(prompt, None, 2)


@pytest.mark.parametrize("endpoint", [RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "Stream error: http://10.0.0.9:8400", "type": "stream_error"}},
        {"type": "error", "error": {"type": "internal_error", "message": "x"}},
        {"type": "error", "message": "x", "code": None},
        {"type": 'x"\r\ndata: {}'},
        {"type": ["message_stop"]},
        {},
        [],
        None,
        "message_stop",
    ],
)
def test_what_is_no_event_is_a_failure(endpoint: str, event: Any) -> None:
    reads = view(endpoint)
    assert reads.see(json.dumps(event).encode()) is None
    assert reads.failure is not None
    assert not reads.complete


def test_a_response_that_failed_is_a_failure() -> None:
    reads = ResponsesView()
    assert reads.see(b'{"type":"response.failed","response":{"usage":null}}') is None
    assert reads.failure is not None
    assert ResponsesView().see(b"{") is None


def test_what_was_asked_is_no_part_of_a_failure() -> None:
    reads = ResponsesView()
    failed = {"instructions": "a secret", "error": {"code": "server_error", "message": "broke"}}
    reads.see(json.dumps({"type": "response.failed", "response": failed}).encode())
    assert reads.failure is not None
    assert "broke" in reads.failure
    assert "secret" not in reads.failure
    reads = ResponsesView()
    reads.see(b'{"type":"response.output_text.delta","delta":"a secret')
    assert reads.failure is not None
    assert "secret" not in reads.failure


def test_an_incomplete_response_is_whole() -> None:
    reads = ResponsesView()
    reads.see(b'{"type":"response.incomplete","response":{"usage":{"output_tokens":3}}}')
    assert reads.complete
    assert reads.tally.tokens.completion == 3


def test_what_a_balancer_says_after_the_end_is_not_heard() -> None:
    reads = MessagesView()
    assert reads.see(b'{"type":"message_stop"}')
    assert reads.see(b'{"error":{"message":"unexpected EOF"}}') is None
    assert (reads.complete, reads.failure) == (True, None)


def test_numbers_that_are_none_are_not_counted() -> None:
    reads = MessagesView()
    usage = {"input_tokens": "7", "output_tokens": -1, "cache_read_input_tokens": True}
    reads.see(json.dumps({"type": "message_start", "message": {"usage": usage}}).encode())
    reads.see(b'{"type":"message_start","message":[]}')
    assert reads.tally.tokens == Tokens()


def test_data_of_several_lines_stay_one_event() -> None:
    reads = MessagesView()
    data = b'{\r\n"type":\n"message_stop"\n}'
    assert reads.see(data) == data
    framed = reads.frame(data)
    assert framed.startswith(b"event: message_stop\n")
    assert framed.count(b"\n\n") == 1
    assert b"\r" not in framed


def count(endpoint: str, answer: object) -> Tokens:
    return read_whole(endpoint, json.dumps(answer, separators=(",", ":")).encode())


def test_usage_of_whole_answers() -> None:
    for endpoint in (RESPONSES, MESSAGES):
        answer = scripted_apis.whole(endpoint, {"model": "m"}, WORDS, 10, 4)
        assert count(endpoint, answer) == Tokens(10, 4, 3)
        assert count(endpoint, {}) == Tokens()
        assert count(endpoint, []) == Tokens()
    usage = {"input_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5}
    assert count(MESSAGES, {"usage": usage | {"output_tokens": 1}}) == Tokens(10, 5, 1)
    assert count(CHAT, {"usage": {"prompt_tokens": 2, "completion_tokens": 1}}).prompt == 2
    counted = scripted_apis.whole(scripted_apis.COUNT_TOKENS, {}, [], 10, 0)
    assert count(scripted_apis.COUNT_TOKENS, counted) == Tokens(0, 0, 0)


def test_a_long_answer_is_counted_without_reading_it_all() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 9}
    said = '"usage":{"prompt_tokens":0,"completion_tokens":0}' + "x" * (1 << 20)
    # A token of that name after it, as vLLM 0.32 puts the prompt's log probabilities last.
    answer = {"choices": [{"text": said}], "usage": usage, "prompt_logprobs": [{"usage": -1.5}]}
    assert count(CHAT, answer) == Tokens(2, None, 9)
    body = json.dumps(answer, separators=(",", ":")).encode()
    assert read_whole(CHAT, b"?" + body[1:]) == Tokens(2, None, 9)  # this is what is not read
    assert count(CHAT, answer | {"usage": None}) == Tokens()
    # A response repeats what its client wrote, which may look like a count.
    tools = [{"parameters": {"usage": {"input_tokens": 0, "output_tokens": 0}}}]
    answer = {"usage": {"input_tokens": 2, "output_tokens": 9}, "tools": tools, "text": said}
    assert count(RESPONSES, answer) == Tokens(2, None, 9)
    with pytest.raises(ValueError, match="Expecting"):
        read_whole(CHAT, b"<" * (2 << 20))


RECORDED = Path(__file__).with_name("recorded")


@pytest.mark.parametrize(
    ("name", "endpoint", "tokens"),
    [
        ("responses", RESPONSES, Tokens(9, 0, 8)),
        ("messages", MESSAGES, Tokens(8, 0, 8)),
        ("messages_tool", MESSAGES, Tokens(5, 0, 44)),
    ],
)
def test_what_vllm_really_says_behind_smg(name: str, endpoint: str, tokens: Tokens) -> None:
    """Recorded from vLLM 0.32 behind smg 1.13."""
    said = (RECORDED / f"{name}.sse").read_bytes()
    reads = view(endpoint)
    passed = b""
    for event in EventSplitter().feed(said):
        data = data_of(event)
        assert data is not None
        seen = reads.see(data)
        assert seen is not None
        passed += reads.frame(seen)
    assert passed == said
    assert reads.complete
    assert reads.tally.tokens == tokens


def test_what_smg_really_says_of_a_replica_that_was_killed() -> None:
    said = (RECORDED / "responses_killed.sse").read_bytes()
    *events, done = [data_of(event) for event in EventSplitter().feed(said)]
    assert done == b"[DONE]"
    reads = view(RESPONSES)
    for data in events:
        assert data is not None
        reads.see(data)
    assert reads.failure is not None
    assert not reads.complete
