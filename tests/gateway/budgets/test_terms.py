from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast_gateway.budgets.terms import Budget, amount, faults
from holdfast_gateway.budgets.windows import Period, end_of, stamp, start_of
from holdfast_installer.site_budgets import Budget as SiteBudget
from holdfast_installer.site_budgets import BudgetRules as SiteRules
from holdfast_installer.site_budgets import budget_disagreements


def budget(**more: Any) -> Budget:
    return Budget.model_validate(more)


@pytest.mark.parametrize(
    "terms",
    [
        {"tokens": 1, "per": "day"},
        {"user": "a", "team": "b", "tokens": 1, "per": "day"},
        {"user": "a", "per": "day"},
        {"user": "a", "tokens": 1, "cost": 1, "per": "day"},
        {"user": "a", "tokens": 1},
        {"user": "a", "cost": 1},
        {"user": "a", "concurrency": 1, "per": "day"},
    ],
)
def test_a_budget_says_one_thing_in_both_places(terms: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        budget(**terms)
    assert list(budget_disagreements([SiteBudget.model_validate(terms)], [], ["b"], []))


@pytest.mark.parametrize(
    "terms",
    [
        {"user": "a", "tokens": -1, "per": "day"},
        {"user": "a", "tokens": True, "per": "day"},
        {"user": "a", "tokens": 1, "per": "week"},
        {"user": "", "tokens": 1, "per": "day"},
        {"everybody": False, "tokens": 1, "per": "day"},
        {"user": "a", "cost": "0.0000001", "per": "day"},
        {"user": "a", "tokens": 1, "per": "day", "warn_at": 0},
        {"user": "a", "tokens": 1, "per": "day", "colour": "red"},
    ],
)
def test_what_is_no_budget_in_both_places(terms: dict[str, Any]) -> None:
    for kind in (Budget, SiteBudget):
        with pytest.raises(ValidationError):
            kind.model_validate(terms)


def test_what_the_site_writes_the_gateway_reads() -> None:
    """Their fields and defaults are the same, and so is what they mean."""
    from holdfast_gateway.budgets.terms import BudgetRules

    for ours, theirs in ((Budget, SiteBudget), (BudgetRules, SiteRules)):
        assert list(ours.model_fields) == list(theirs.model_fields)
        for name, field in ours.model_fields.items():
            assert field.default == theirs.model_fields[name].default, name
    written = SiteBudget.model_validate({"user": "*", "cost": "2.5", "per": "day"})
    assert Budget.model_validate(written.model_dump(mode="json")).limit == 2_500_000


def test_what_must_agree_in_a_configuration() -> None:
    day = budget(user="a", tokens=1, per="day")
    assert faults((day, budget(user="a", tokens=2, per="day")), {}) != []
    assert faults((day, budget(user="a", tokens=2, per="month")), {}) == []
    assert "no model here" in faults((budget(user="a", tokens=1, per="day", model="m"),), {})[0]
    cost = budget(user="a", cost=1, per="day")
    assert faults((cost,), {"m": True}) == []
    assert "no tariff" in faults((cost,), {"m": True, "n": False})[0]
    one = budget(user="a", cost=1, per="day", model="m")
    assert faults((one,), {"m": True, "n": False}) == []


def test_what_must_agree_in_a_site() -> None:
    def wrong(*terms: dict[str, Any]) -> list[tuple[str | int, ...]]:
        budgets = [SiteBudget.model_validate(each) for each in terms]
        found = budget_disagreements(budgets, ["org/m"], ["research"], [])
        return [where for where, _ in found]

    day = {"tokens": 1, "per": "day"}
    assert wrong({"team": "research", **day}, {"team": "*", **day}) == []
    assert wrong({"team": "nobody", **day}) == [("budgets", 0, "team")]
    assert wrong({"user": "a", "model": "org/n", **day}) == [("budgets", 0, "model")]
    assert wrong({"user": "a", "cost": 1, "per": "day"}) == [("budgets", 0, "cost")]
    assert wrong({"user": "a", **day}, {"user": "a", **day}) == [("budgets", 1)]


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("minute", "2026-11-20T10:59:59.999", "2026-11-20T10:59", "2026-11-20T11:00"),
        ("day", "2024-02-29T23:59:59.999", "2024-02-29", "2024-03-01"),
        ("month", "2024-02-29T23:59:59.999", "2024-02-01", "2024-03-01"),
        ("month", "2026-12-01T00:00:00", "2026-12-01", "2027-01-01"),
    ],
)
def test_windows_are_those_of_the_calendar(period: Period, now: str, start: str, end: str) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    window = start_of(period, seconds(now))
    assert window == seconds(start)
    assert end_of(period, window) == seconds(end)
    assert start_of(period, end_of(period, window)) == seconds(end)


def test_amounts_in_words() -> None:
    assert amount(1, "tokens", "EUR") == "1 token"
    assert amount(0, "concurrency", "EUR") == "0 requests"
    assert amount(2_500_000, "cost", "EUR") == "2.50 EUR"
    assert amount(104, "cost", "EUR") == "0.000104 EUR"
    assert stamp(0) == "1970-01-01T00:00:00Z"
