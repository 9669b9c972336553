"""A canary that is worse does not pass, by figure; one that is as good does."""

from __future__ import annotations

import pytest

from holdfast_installer.serving.judging import (
    Asked,
    Counters,
    Thresholds,
    findings,
    of_prompts,
    of_traffic,
)

LIMITS = Thresholds()
GOOD = Asked(ttft=(0.20, 0.21, 0.22), errors=(), answers=("a", "b"))


def counted(requests: float, errors: float, fast: float, slow: float = 0) -> Counters:
    """Return counters whose first tokens came within 0.1 s, or within 2.5 s."""
    bounds = {"0.1": fast, "2.5": fast + slow, "+Inf": fast + slow}
    return Counters(requests=requests, errors=errors, ttft=bounds)


def against(canary: Asked, serving: Asked = GOOD, limits: Thresholds = LIMITS) -> list[str]:
    return [one.name for one in findings(list(of_prompts(canary, serving, limits)))]


def test_one_that_is_as_good_holds() -> None:
    assert against(GOOD) == []


def test_an_error_that_the_old_one_does_not_make_counts() -> None:
    bad = Asked(ttft=(0.2,) * 4, errors=("HTTP 500: x", "HTTP 500: x"), answers=("a",))
    assert against(bad) == ["prompt-errors"]
    (finding,) = findings(list(of_prompts(bad, GOOD, LIMITS)))
    assert finding.detail.endswith(": HTTP 500: x")
    assert "canary 0.333, serving 0, allowed 0" in finding.detail
    assert against(bad, limits=Thresholds(errors=0.5)) == []


def test_a_canary_that_answered_nothing_never_holds() -> None:
    dead = Asked(ttft=(), errors=("x",) * 3, answers=())
    assert "prompt-errors" in against(dead, limits=Thresholds(errors=1.0))
    assert "prompt-errors" in against(dead, serving=dead)


@pytest.mark.parametrize(("ttft", "holds"), [(0.31, True), (0.32, False), (2.0, False)])
def test_a_slower_first_token_counts_beyond_the_ratio(ttft: float, *, holds: bool) -> None:
    slow = Asked(ttft=(ttft,) * 3, errors=(), answers=("a", "b"))
    assert (against(slow) == []) is holds


def test_a_few_milliseconds_are_never_a_reason() -> None:
    quick = Asked(ttft=(0.01,) * 3, errors=(), answers=())
    slower = Asked(ttft=(0.10,) * 3, errors=(), answers=())
    assert against(slower, serving=quick) == []


def test_other_answers_are_told_and_decide_nothing() -> None:
    other = GOOD.model_copy(update={"answers": ("a", "z")})
    figures = {one.name: one for one in of_prompts(other, GOOD, LIMITS)}
    assert figures["same-answers"].canary == 1
    assert figures["same-answers"].serving == 2
    assert "'z' instead of 'b'" in figures["same-answers"].detail
    assert figures["same-answers"].holds is None


def test_users_errors_and_waits_count() -> None:
    old = counted(1000, 0, 1000)
    assert findings(list(of_traffic(counted(100, 0, 100), old, LIMITS))) == ()
    worse = findings(list(of_traffic(counted(100, 2, 80, 20), old, LIMITS)))
    assert [one.name for one in worse] == ["live-errors", "live-ttft-p95"]


def test_few_requests_say_nothing_but_an_error_does() -> None:
    old = counted(1000, 0, 1000)
    assert {one.holds for one in of_traffic(counted(19, 0, 0, 19), old, LIMITS)} == {None}
    figures = list(of_traffic(counted(1, 1, 0), old, LIMITS))
    assert figures[0].holds is False


def test_a_canary_that_died_does_not_hold() -> None:
    (figure,) = of_traffic(Counters(problem="refused"), counted(9, 0, 9), LIMITS)
    assert figure.holds is False


def test_only_what_was_counted_meanwhile_counts() -> None:
    before, now = counted(100, 5, 50, 50), counted(160, 5, 110, 50)
    since = now.since(before)
    assert (since.requests, since.errors) == (60, 0)
    assert since.quantile() == 0.1
    assert Counters().quantile() is None
