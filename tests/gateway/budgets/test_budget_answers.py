"""What clients see of budgets, and what they are charged: one gateway, a model for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from budget_parts import COMPLETION_TOKENS, EACH, ask, ask_as_eve, body, gateway_with, spent
from gateway_parts import ADA, RunningGateway, until
from scripted_upstream import PROMPT_TOKENS, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

SPENT = (429, "budget_exceeded")
BUDGETS: dict[str, dict[str, Any]] = {
    "test/stopped": {"user": "ada", "tokens": 1000, "per": "month"},
    "test/refused": {"user": "ada", "tokens": 50 * EACH, "per": "month"},
    "test/told": {"user": "*", "tokens": 3 * EACH, "per": "day"},
    # 7 prompt tokens at 2 (4 of them cached, at 1) and 4 at 10 a million: 50 micro-units.
    "test/priced": {"team": "research", "cost": "0.000104", "per": "month"},
    "test/slots": {"key": "*", "concurrency": 3},
    "test/unbounded": {"user": "ada", "tokens": 5000, "per": "day"},
}
CONTEXTS = {"test/stopped": 900, "test/unbounded": None}


@pytest.fixture(scope="module")
def one(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: ScriptedUpstream
) -> Iterator[RunningGateway]:
    common = {
        "upstream": shared_upstream.url,
        "teams": ["research"],
        "labels": {"jurisdiction": "de", "classification": "internal"},
        "tariff": {"prompt": 2, "cached": 1, "completion": 10},
    }
    with gateway_with(
        tmp_path_factory.mktemp("budgets"),
        shared_upstream.url,
        [budget | {"model": model} for model, budget in BUDGETS.items()],
        more_models=[
            {"id": model, "context_tokens": CONTEXTS.get(model, EACH), **common}
            for model in BUDGETS
        ],
        budget_rules={"completion_tokens": 100},
    ) as running:
        yield running


def of(model: str, **more: Any) -> dict[str, Any]:
    return body(**more) | {"model": model}


def scripted(model: str, script: Script, **more: Any) -> dict[str, Any]:
    return of(model, **more) | {"messages": [{"role": "user", "content": str(script)}]}


def test_an_aborted_stream_is_charged_for_what_was_generated(one: RunningGateway) -> None:
    model = "test/stopped"
    script = Script(tokens=50, hang_after=3)
    question = scripted(model, script, stream=True, max_tokens=800)
    headers = {"Authorization": f"Bearer {ADA}"}
    with httpx.stream(
        "POST", f"{one.url}/v1/chat/completions", json=question, headers=headers, timeout=30
    ) as stream:
        lines = (line for line in stream.iter_lines() if line)
        for _ in range(3):
            next(lines)
        refused = one.post(of(model, max_tokens=500))
        # 900 were reserved for the stream; its first event told the prompt's true size.
        assert f"beside {PROMPT_TOKENS + 800} tokens held" in refused.text
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    until(lambda: one.post(of(model, max_tokens=500)).status_code == 200)
    until(lambda: spent(one, model) == PROMPT_TOKENS + 3 + EACH)


def test_what_a_replica_refused_costs_nothing(one: RunningGateway) -> None:
    model = "test/refused"
    refusal = Script(status=400, error={"error": {"message": "no", "code": 400}})
    assert one.post(scripted(model, refusal)).status_code == 400
    assert one.post(of(model)).status_code == 200
    until(lambda: spent(one, model) == EACH)


def test_a_refusal_says_which_budget_how_much_and_until_when(one: RunningGateway) -> None:
    model = "test/told"
    first = one.post(of(model))
    assert first.headers["x-ratelimit-limit-tokens"] == str(3 * EACH)
    assert first.headers["x-ratelimit-remaining-tokens"] == str(2 * EACH)
    assert "x-holdfast-budget-warning" not in first.headers
    assert one.post(of(model)).status_code == 200
    last = one.post(of(model))
    warning = last.headers["x-holdfast-budget-warning"]
    assert warning.startswith(f"user 'ada': 33 tokens a day of '{model}': 0 tokens left until")
    refused = one.post(of(model))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == SPENT
    assert error["type"] == "insufficient_quota"
    for part in ("user 'ada'", "33 tokens a day", "leaves 0 tokens", "up to 11 tokens"):
        assert part in error["message"]
    assert "It is renewed at 20" in error["message"]
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    assert ask_as_eve(one.url).status_code == 200


def test_cost_is_reserved_at_the_dearest_and_charged_as_it_was(one: RunningGateway) -> None:
    model = "test/priced"
    answers = ask([one.url], 8, model=model, delay=0.2)
    assert answers.done == 1, "at most 62 are reserved: beside one there is no room"
    assert one.post(of(model)).status_code == 429, "54 are left, 62 might be needed"
    last = one.post(of(model, max_tokens=1))
    assert last.status_code == 200, last.text


def test_slots_are_given_back(one: RunningGateway) -> None:
    model = "test/slots"
    answers = ask([one.url], 10, model=model, delay=0.5)
    assert answers.outcomes == {(200, None): 3, SPENT: 7}
    for _ in range(3):
        assert ask([one.url], 3, model=model).done == 3
    refused = ask([one.url], 4, model=model, delay=0.5).outcomes
    assert refused == {(200, None): 3, SPENT: 1}


def test_a_request_without_max_tokens_is_bounded(
    one: RunningGateway, upstream: ScriptedUpstream
) -> None:
    model = "test/unbounded"
    free = of(model)
    del free["max_tokens"]
    assert one.post(free).status_code == 200
    assert upstream.requests[-1].body["max_tokens"] == 100
    assert one.post(of(model, max_tokens=COMPLETION_TOKENS)).status_code == 200
    assert upstream.requests[-1].body["max_tokens"] == COMPLETION_TOKENS
    assert one.post(of(model, max_tokens=5000)).status_code == 429
