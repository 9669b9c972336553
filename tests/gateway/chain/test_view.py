from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, Call
from holdfast_gateway.chain.view import StreamView
from holdfast_gateway.metering.tokens import Tokens

USAGE = {"prompt_tokens": 3, "total_tokens": 4, "completion_tokens": 1}


def view(**call: Any) -> StreamView:
    return StreamView(Call(CHAT, "m", b"", stream=True, **call))


def chunk(index: int = 0, text: str = "x", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"id": "1", "choices": [choice]} | more, separators=(",", ":")).encode()


FINAL = json.dumps({"id": "1", "choices": [], "usage": USAGE}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "text", ["x", ',"usage":{"a":1}}', '"choices":[]', "grüße\\", '\\",\\"usage\\":{}}']
)
def test_usage_is_cut_out_and_not_a_byte_else(text: str) -> None:
    assert view().see(chunk(text=text, usage=USAGE)) == chunk(text=text)
    assert view().see(chunk(text=text)) == chunk(text=text)
    # Not where vLLM writes it: between other keys.
    moved = chunk(text=text, usage=USAGE, later=1)
    assert json.loads(view().see(moved) or b"") == json.loads(chunk(text=text, later=1))


def test_usage_inside_a_choice_is_not_ours() -> None:
    inner = b'{"choices":[{"index":0,"delta":{"a":1,"usage":{"prompt_tokens":9}}}]}'
    nested = b'{"choices":[{"index":0,"finish_reason":"stop"}],"x":{"a":1,"usage":{"b":2}}}'
    assert view().see(inner) == inner
    seen = view()
    assert seen.see(nested) == nested
    assert seen.tally.tokens == Tokens()


def test_a_null_usage_is_not_passed_either() -> None:
    assert json.loads(view().see(chunk(usage=None)) or b"") == json.loads(chunk())


def test_each_gets_the_usage_it_asked_for() -> None:
    assert view().see(FINAL) is None
    assert view(wants_usage=True).see(FINAL) == FINAL
    assert view(wants_usage=True).see(chunk(usage=USAGE)) == chunk()
    both = view(wants_usage=True, wants_continuous_usage=True)
    assert both.see(chunk(usage=USAGE)) == chunk(usage=USAGE)
    assert both.see(FINAL) == FINAL


def test_an_upstream_that_reports_usage_is_complete_with_its_sum() -> None:
    seen = view()
    seen.see(chunk(usage=USAGE))
    seen.see(chunk(finish="stop", usage=USAGE))
    assert not seen.complete
    seen.see(FINAL)
    assert seen.complete
    assert seen.tally.tokens == Tokens(3, None, 1)


def test_an_upstream_without_usage_is_complete_when_all_choices_are() -> None:
    seen = view(choices_per_prompt=2, one_choice=False)
    assert not seen.complete
    seen.see(chunk(0, finish="stop"))
    seen.see(chunk(1))
    assert not seen.complete
    seen.see(chunk(1, finish="length"))
    assert seen.complete
    assert seen.tally.tokens == Tokens()


@pytest.mark.parametrize("data", [b"{", b"[]", b"7", b'{"error":{"message":"dead"}}'])
def test_an_error_or_nonsense_ends_it(data: bytes) -> None:
    seen = view()
    seen.see(chunk(finish="stop"))
    assert seen.see(data) is None
    assert seen.failure is not None
    assert not seen.complete


def test_choices_are_counted_each_for_itself() -> None:
    call = Call(COMPLETIONS, "m", b"", choices_per_prompt=2, one_choice=False)
    seen = StreamView(call)
    for index, (prompt, completion) in enumerate([(3, 5), (3, 6), (10, 1), (10, 2)]):
        for so_far in range(1, completion + 1):
            usage = {"prompt_tokens": prompt, "completion_tokens": so_far}
            seen.see(chunk(index, usage=usage))
    assert seen.tally.tokens == Tokens(13, None, 14)


def test_cached_tokens_are_read_from_the_sum() -> None:
    seen = view()
    details = {"prompt_tokens_details": {"cached_tokens": 2}}
    seen.see(json.dumps({"choices": [], "usage": USAGE | details}, separators=(",", ":")).encode())
    assert seen.tally.tokens == Tokens(3, 2, 1)


def test_what_a_balancer_says_after_the_sum_is_not_heard() -> None:
    seen = view(wants_usage=True)
    end = b'{"id":"a","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1}}'
    assert seen.see(end) == end
    assert seen.complete
    for late in (b'{"error":{"message":"unexpected EOF"}}', end, b"nonsense"):
        assert seen.see(late) is None
    assert (seen.complete, seen.failure) == (True, None)
