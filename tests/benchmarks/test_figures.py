"""What every benchmark prints has one shape; a goal missed and a figure not taken are both told."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", BENCHMARKS / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def drawn(figures: ModuleType, *some: object) -> str:
    console = Console(width=150)
    with console.capture() as capture:
        console.print(figures.as_table("title", some))
    return str(capture.get())


def test_a_ratio_is_of_medians_and_tells_both_readings_and_the_baseline(
    figures: ModuleType,
) -> None:
    ours, theirs = figures.Times((2.0, 9.0, 2.2)), figures.Times((1.0, 2.0, 4.0))
    figure = figures.ratio("verify-ratio", ours, theirs, "`sha256sum`", 1.25)
    assert figure.as_data() == {
        "value": 1.1,
        "unit": "ratio",
        "goal": "<= 1.25",
        "baseline": "2.20 s (2.00-9.00, n=3) to 2.00 s (1.00-4.00, n=3) of `sha256sum`",
        "holds": True,
    }


@pytest.mark.parametrize(
    ("value", "at_most", "holds", "word"),
    [
        (1.25, 1.25, True, "yes"),
        (1.26, 1.25, False, "NO"),
        (1.26, None, None, "-"),
        (None, 1.25, False, "NO"),
        (None, None, False, "NO"),
    ],
)
def test_a_goal_holds_or_not_and_what_was_not_measured_never_does(
    figures: ModuleType,
    value: float | None,
    at_most: float | None,
    *,
    holds: bool | None,
    word: str,
) -> None:
    figure = figures.Figure("apply-3-ratio", value, "ratio", "apply-1", at_most)
    assert figure.holds is holds
    row = next(line for line in drawn(figures, figure).splitlines() if "apply-3" in line)
    assert [cell.strip() for cell in row.split("│")][-2] == word
    assert ("not measured" in row) is (value is None)


@pytest.mark.parametrize(
    ("value", "holds", "word"), [(0.9, True, "yes"), (0.89, False, "NO"), (None, False, "NO")]
)
def test_a_goal_may_also_be_the_least(
    figures: ModuleType, value: float | None, *, holds: bool, word: str
) -> None:
    figure = figures.Figure("get-full", value, "ratio", "plain nginx", at_least=0.9)
    assert figure.as_data()["goal"] == ">= 0.9"
    assert figure.holds is holds
    row = next(line for line in drawn(figures, figure).splitlines() if "get-full" in line)
    assert [cell.strip() for cell in row.split("│")][-2] == word


def test_a_goal_that_the_reading_cannot_judge_is_neither_met_nor_missed(
    figures: ModuleType,
) -> None:
    figure = figures.Figure("apply-3-ratio", 0.6, "ratio", "apply-1", 1.6, conclusive=False)
    assert figure.as_data()["holds"] is None
    assert figure.as_data()["goal"] == "<= 1.6"
    assert "inconclusive" in drawn(figures, figure)
    unmeasured = figures.Figure("apply-3-ratio", None, "ratio", "", 1.6, conclusive=False)
    assert unmeasured.holds is False


def test_the_json_is_one_line_with_the_same_five_keys_for_each_figure(figures: ModuleType) -> None:
    some = [
        figures.seconds("lab-boot-1", figures.Times((1.5,)), "to SSH"),
        figures.Figure("apply-1", None, "", "no lab on this machine"),
    ]
    text = figures.as_json(some)
    assert "\n" not in text
    found = json.loads(text)
    assert list(found) == ["lab-boot-1", "apply-1"]
    for figure in found.values():
        assert list(figure) == ["value", "unit", "goal", "baseline", "holds"]
    assert found["lab-boot-1"]["baseline"] == "1.50 s, once; to SSH"
    assert found["apply-1"] == {
        "value": None,
        "unit": "",
        "goal": None,
        "baseline": "no lab on this machine",
        "holds": False,
    }
