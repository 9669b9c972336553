from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, EMBEDDINGS, Call, parse
from holdfast_gateway.api.endpoints import COUNT_TOKENS, RESPONSES
from holdfast_gateway.fairness.lanes import Lane, cost_of, lane_of, seats_of
from holdfast_gateway.fairness.settings import FairnessSettings

SETTINGS = FairnessSettings(short_prompt_tokens=100, short_answer_tokens=50)


def call(endpoint: str = CHAT, **fields: Any) -> Call:
    given: dict[str, dict[str, Any]] = {
        CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
        COMPLETIONS: {"prompt": "Hi"},
        EMBEDDINGS: {"input": "Hi"},
        RESPONSES: {"input": "Hi"},
        COUNT_TOKENS: {"messages": [{"role": "user", "content": "Hi"}]},
    }
    body = {"model": "a/b", **given[endpoint], **fields}
    return parse(endpoint, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("asked", "lane"),
    [
        (call(max_tokens=50), Lane.SHORT),
        (call(max_tokens=51), Lane.LONG),
        (call(max_completion_tokens=50), Lane.SHORT),
        (call(), Lane.LONG),
        (call(max_tokens=25, n=2), Lane.SHORT),
        (call(max_tokens=25, n=3), Lane.LONG),
        (call(COMPLETIONS, max_tokens=20, prompt=["a", "b", "c"]), Lane.LONG),
        (call(COMPLETIONS, max_tokens=20, prompt="x" * 500), Lane.LONG),
        (call(EMBEDDINGS), Lane.SHORT),
        (call(EMBEDDINGS, input="x" * 500), Lane.LONG),
        (call(RESPONSES), Lane.LONG),
        (call(RESPONSES, max_output_tokens=20), Lane.SHORT),
        (call(COUNT_TOKENS), Lane.SHORT),
    ],
)
def test_the_lane_is_told_by_what_goes_in_and_what_is_asked_for(asked: Call, lane: Lane) -> None:
    assert lane_of(asked, SETTINGS) is lane


def test_seats_and_costs_count_every_choice_of_every_prompt() -> None:
    asked = call(COMPLETIONS, max_tokens=20, prompt=["a", "b", "c"], n=2)
    assert seats_of(asked) == 6
    assert cost_of(asked) >= 6 * 20
    assert cost_of(call()) > cost_of(call(max_tokens=10)) > cost_of(call(EMBEDDINGS))
