from __future__ import annotations

import pytest

from holdfast_gateway.budgets.account import Account
from holdfast_gateway.budgets.bounds import Bound
from holdfast_gateway.budgets.terms import Budget
from holdfast_gateway.budgets.words import exceeded, headers

NOW = 1_763_625_600.0
BOUND = Bound(44, 256, 1, 1, None)


def account(*, limit: int = 1000, per: str = "day", **state: int) -> Account:
    found = Account(Budget.model_validate({"user": "ada", "tokens": limit, "per": per}), "ada")
    found.ends = NOW + 90
    for name, value in state.items():
        setattr(found, name, value)
    return found


def test_what_is_spent_is_renewed_with_the_window() -> None:
    error = exceeded(account(others_spent=500, spent=380, left=120), 300, BOUND, NOW, "EUR")
    assert error.message == (
        "The budget of user 'ada': 1000 tokens a day leaves 120 tokens; this request could use up "
        "to 300 tokens (prompt at most 44 tokens, completion at most 256). It is renewed at "
        "2025-11-20T08:01:30Z. Ask for less with max_tokens, or later."
    )
    assert (error.status, error.code, error.kind) == (429, "budget_exceeded", "insufficient_quota")
    assert error.headers == {
        "Retry-After": "90",
        "X-Should-Retry": "false",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "120",
        "x-ratelimit-reset-tokens": "1m30s",
    }


def test_what_is_only_held_may_come_back_in_a_moment() -> None:
    error = exceeded(account(spent=100, reserved=800, left=100), 300, BOUND, NOW, "EUR")
    assert "leaves 100 tokens, beside 800 tokens held by requests in progress;" in error.message
    assert "Try again in a moment" in error.message
    assert error.headers["Retry-After"] == "2"
    assert "X-Should-Retry" not in error.headers


def test_what_is_more_than_all_of_it_is_never_there() -> None:
    error = exceeded(account(limit=200), 300, BOUND, NOW, "EUR")
    assert "1000" not in error.message
    assert "200 tokens a day is too small: this request could use up to 300" in error.message
    assert error.headers == {"X-Should-Retry": "false"}


def test_a_minute_is_a_rate() -> None:
    error = exceeded(account(per="minute", spent=1000), 300, BOUND, NOW + 60, "EUR")
    assert error.kind == "rate_limit_exceeded"
    assert error.headers["Retry-After"] == "30"
    assert "X-Should-Retry" not in error.headers


@pytest.mark.parametrize(("spent", "warned"), [(799, False), (800, True), (1200, True)])
def test_the_wall_is_seen_before_it_is_reached(spent: int, *, warned: bool) -> None:
    told = dict(headers([account(spent=spent)], NOW, "EUR"))
    assert (b"x-holdfast-budget-warning" in told) is warned
    assert told[b"x-ratelimit-remaining-tokens"] == str(max(0, 1000 - spent)).encode()


def test_the_tightest_is_told_and_a_header_stays_a_header() -> None:
    wide, tight = account(spent=10), account(spent=900)
    odd = Budget.model_validate(
        {"user": "ada", "cost": 1, "per": "day", "model": "grün\r\nx", "warn_at": 0.1}
    )
    cost = Account(odd, "ada")
    cost.ends, cost.spent = NOW + 90, 999_999
    told = headers([wide, tight, cost], NOW, "EUR")
    assert dict(told)[b"x-ratelimit-remaining-tokens"] == b"100"
    warnings = [value for name, value in told if name == b"x-holdfast-budget-warning"]
    assert len(warnings) == 2
    assert warnings[1].startswith(b"user 'ada': 1.00 EUR a day of 'gr?n??x': 0.000001 EUR left")
