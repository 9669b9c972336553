from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, EMBEDDINGS, Call, parse
from holdfast_gateway.api.endpoints import COUNT_TOKENS, MESSAGES, RESPONSES
from holdfast_gateway.budgets.bounds import bound, limits
from holdfast_gateway.budgets.terms import BudgetRules

RULES = BudgetRules(template_tokens=100, completion_tokens=50)


def call(endpoint: str = CHAT, **more: Any) -> Call:
    if endpoint in (CHAT, MESSAGES, COUNT_TOKENS):
        body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    elif endpoint == COMPLETIONS:
        body = {"prompt": "hi"}
    else:
        body = {"input": "hi"}
    return parse(endpoint, json.dumps({"model": "m"} | body | more).encode())


def test_the_body_bounds_the_prompt() -> None:
    asked = call(max_tokens=7)
    found = bound(asked, None, RULES)
    assert (found.prompt, found.completion) == (asked.size + 108, 7)
    assert found.tokens == found.prompt + 7


def test_choices_and_prompts_multiply() -> None:
    asked = call(COMPLETIONS, prompt=["a", "b", "c"], n=2, max_tokens=10)
    assert bound(asked, None, RULES).completion == 60
    assert bound(asked, 8, RULES).tokens == 48


def test_the_context_bounds_both_together() -> None:
    assert bound(call(max_tokens=1000), 64, RULES).tokens == 64
    assert bound(call(), 64, RULES).tokens == 64
    assert bound(call(max_tokens=3), 64, RULES).completion == 3


@pytest.mark.parametrize(
    ("endpoint", "more", "context", "told"),
    [
        (CHAT, {}, None, {"max_tokens": 50}),
        (CHAT, {}, 64, {}),
        (CHAT, {"max_completion_tokens": 9}, None, {}),
        (RESPONSES, {}, None, {"max_output_tokens": 50}),
        (COMPLETIONS, {}, 64, {"max_tokens": 16}),
        (COMPLETIONS, {"max_tokens": None}, None, {"max_tokens": 50}),
        (EMBEDDINGS, {}, None, {}),
        (MESSAGES, {"max_tokens": 5}, None, {}),
    ],
)
def test_what_nobody_bounds_the_gateway_does(
    endpoint: str, more: dict[str, Any], context: int | None, told: dict[str, Any]
) -> None:
    asked = call(endpoint, **more)
    assert limits(asked, context, RULES) == told
    if told:
        assert bound(asked, context, RULES).completion == next(iter(told.values()))


def test_an_embedding_generates_nothing_and_counting_costs_nothing() -> None:
    assert bound(call(EMBEDDINGS, input=["a", "b"]), None, RULES).completion == 0
    assert bound(call(EMBEDDINGS, input=["", ""]), None, RULES).prompt >= 2 * 8
    assert bound(call(COUNT_TOKENS), None, RULES).tokens == 0


def test_a_picture_is_not_bounded_by_its_bytes() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "?"}, picture]}]
    asked = call(messages=messages, max_tokens=1)
    assert bound(asked, None, RULES).prompt > 16_384
    assert bound(asked, 4096, RULES).prompt == 4096


def test_tools_count_twice() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    asked = call(tools=tools, max_tokens=1)
    assert bound(asked, None, RULES).prompt == 2 * asked.size + 108


def test_the_count_frees_what_was_too_much() -> None:
    found = bound(call(), 64, RULES).counted(10)
    assert (found.prompt, found.completion, found.tokens) == (10, 54, 64)
    assert bound(call(max_tokens=5), 64, RULES).counted(10).tokens == 15


def test_a_picture_without_a_type_counts_as_one() -> None:
    part = {"image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = call(messages=[{"role": "user", "content": [part, {"type": "image_url", **part}]}])
    assert bound(asked, None, RULES).prompt == asked.size + 108 + 2 * 16_384
    tool = {"type": "tool_use", "input": {"file_path": "a"}}
    asked = call(messages=[{"role": "user", "content": [tool]}])
    assert bound(asked, None, RULES).prompt == asked.size + 108


def test_an_echo_of_nothing_more_is_one_token() -> None:
    asked = call(COMPLETIONS, echo=True, max_tokens=0)  # as vLLM 0.32 generates and counts it
    assert bound(asked, None, RULES).completion == 1
    assert bound(asked, 64, RULES).counted(3).tokens == 4
