"""Whose budgets a request falls under, and what it is charged."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, parse
from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.budgets.lease_store import LeaseStore
from holdfast_gateway.budgets.leasing import Leasing
from holdfast_gateway.budgets.reservations import Budgets
from holdfast_gateway.budgets.terms import Budget, BudgetRules
from holdfast_gateway.config import Model
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.question import Question
from holdfast_trust.decisions import Decision
from holdfast_trust.principals import Principal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ADA = Principal(1, "user", "ada", token_id="k1")
BOT = Principal(2, "agent", "bot", token_id="k2", owner="ada")
MODEL = Model.model_validate(
    {
        "id": "org/m",
        "upstream": "http://127.0.0.1:1",
        "context_tokens": 100,
        "tariff": {"prompt": 1, "cached": 0, "completion": 10},
    }
)


def question(principal: Principal = ADA, endpoint: str = CHAT, **more: Any) -> Question:
    body = {"model": "org/m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
    call = parse(endpoint, json.dumps(body | more).encode())
    return Question(
        request_id="req_1",
        started=0.0,
        time=datetime.now(UTC),
        principal=principal,
        team="research",
        session=None,
        call=call,
        model=MODEL,
        decision=Decision(allowed=True, policies=(), policy_version="", reason=""),
    )


def run(
    folder: Path, budgets: list[dict[str, Any]], test: Callable[[Budgets, Leasing], Awaitable[None]]
) -> dict[str, int]:
    """Return what was spent, by account."""
    store = LeaseStore(f"sqlite:///{folder}/budgets.db", lease_seconds=45)
    store.create_schema()

    async def inside() -> None:
        leasing = Leasing(store, "one", 30)
        leasing.start()
        terms = [Budget.model_validate(each) for each in budgets]
        try:
            await test(Budgets(terms, BudgetRules(), leasing), leasing)
        finally:
            await leasing.close()

    try:
        asyncio.run(inside())
        return {each.account: each.spent for each in store.balances()}
    finally:
        store.close()


def charged(folder: Path, budgets: list[dict[str, Any]], *asked: Question) -> dict[str, int]:
    async def test(found: Budgets, _leasing: Leasing) -> None:
        for each in asked:
            (await found.reserve(each)).settle(Tokens(7, 4, 3), sent=True)

    return run(folder, budgets, test)


def test_a_request_is_charged_to_all_that_it_falls_under(tmp_path: Path) -> None:
    day = {"tokens": 1000, "per": "day"}
    budgets = [
        *({kind: "*", **day} for kind in ("key", "user", "team", "agent")),
        {"everybody": True, **day},
        {"user": "*", "model": "org/other", **day},
        {"user": "eve", **day},
        {"user": "ada", "cost": 1, "per": "month"},
    ]
    assert charged(tmp_path, budgets, question(), question(BOT)) == {
        "tokens:day:key:k1:": 10,
        "tokens:day:key:k2:": 10,
        "tokens:day:user:ada:": 20,
        "tokens:day:team:research:": 20,
        "tokens:day:agent:bot:": 10,
        "tokens:day:everybody::": 20,
        "cost:month:user:ada:": 2 * (3 + 30),
    }


def test_who_is_named_has_that_budget_instead(tmp_path: Path) -> None:
    async def test(found: Budgets, _leasing: Leasing) -> None:
        await found.reserve(question())
        with pytest.raises(ApiError):
            await found.reserve(question(replace(ADA, name="eve")))

    run(
        tmp_path,
        [
            {"user": "*", "tokens": 10, "per": "day"},
            {"user": "ada", "tokens": 1000, "per": "day"},
        ],
        test,
    )


@pytest.mark.parametrize(
    ("tokens", "sent", "spent"),
    [
        (Tokens(7, None, 3), True, 10),
        (Tokens(7, None, 3), False, 0),
        (Tokens(), True, 100),
        (Tokens(7, None, None), True, 100),
        (Tokens(), False, 0),
    ],
)
def test_what_is_charged(tmp_path: Path, tokens: Tokens, *, sent: bool, spent: int) -> None:
    async def test(found: Budgets, _leasing: Leasing) -> None:
        reservation = await found.reserve(question(max_tokens=90))
        reservation.settle(tokens, sent=sent)
        reservation.settle(Tokens(50, None, 50), sent=True)  # the first call counts

    account = run(tmp_path, [{"user": "ada", "tokens": 500, "per": "month"}], test)
    assert account == {"tokens:month:user:ada:": spent}


def test_the_first_count_frees_what_was_too_much(tmp_path: Path) -> None:
    async def test(found: Budgets, leasing: Leasing) -> None:
        reservation = await found.reserve(question())
        (account,) = leasing.accounts.values()
        assert account.reserved == 100
        reservation.counted(Tokens(7, None, 1))
        assert account.reserved == 27
        reservation.settle(Tokens(), sent=True)
        assert (account.reserved, account.spent) == (0, 27)

    run(tmp_path, [{"user": "ada", "tokens": 500, "per": "month"}], test)


def test_one_of_several_prompts_frees_nothing(tmp_path: Path) -> None:
    async def test(found: Budgets, leasing: Leasing) -> None:
        two = question(endpoint=COMPLETIONS, prompt=["a", "b"])
        reservation = await found.reserve(two)
        (account,) = leasing.accounts.values()
        assert account.reserved == 200
        reservation.counted(Tokens(7, None, 1))
        assert account.reserved == 200

    run(tmp_path, [{"user": "ada", "tokens": 500, "per": "month"}], test)


def test_a_bound_that_was_wrong_is_charged_in_full_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(found: Budgets, _leasing: Leasing) -> None:
        (await found.reserve(question())).settle(Tokens(300, None, 50), sent=True)

    spent = run(tmp_path, [{"user": "ada", "tokens": 500, "per": "month"}], test)
    assert spent == {"tokens:month:user:ada:": 350}
    assert "req_1: defect: 100 tokens reserved, 350 used" in caplog.text


def test_without_budgets_nothing_is_asked_or_said() -> None:
    async def test() -> None:
        found = Budgets()
        reservation = await found.reserve(question())
        reservation.counted(Tokens(1, None, 0))
        reservation.settle(Tokens(), sent=True)
        assert reservation.headers == ()
        assert found.limits(question(max_tokens=None)) == {}

    asyncio.run(test())
