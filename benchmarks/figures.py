"""What a benchmark says: figures with their baselines, as one table and as one JSON object."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Times:
    """Durations of the same thing done several times, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: one slow reading on a noisy machine does not move it far."""
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        if len(self.seconds) == 1:
            return f"{self.median:.2f} s, once"
        spread = f"{min(self.seconds):.2f}-{max(self.seconds):.2f}"
        return f"{self.median:.2f} s ({spread}, n={len(self.seconds)})"


@dataclass(frozen=True)
class Figure:
    """One published figure; `value` is None where it could not be measured.

    `unit` is "s", "ratio" or another word; `baseline` says in words what the value was held against
    in the same run, with its own reading; `at_most` or `at_least` is the goal, where there is one.
    `conclusive` is false where this reading cannot judge the goal, and `baseline` then says why.
    """

    name: str
    value: float | None
    unit: str
    baseline: str
    at_most: float | None = None
    conclusive: bool = True
    at_least: float | None = None

    @property
    def goal(self) -> str | None:
        """The goal as people read it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return None if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; None without a goal or a verdict; unmeasured never holds."""
        if self.value is None:
            return False
        if self.goal is None or not self.conclusive:
            return None
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.at_most is not None and self.value <= self.at_most

    @property
    def verdict(self) -> str:
        """What `holds` says, for people."""
        if self.value is not None and self.goal is not None and not self.conclusive:
            return "inconclusive"
        return {True: "yes", False: "NO", None: "-"}[self.holds]

    def as_data(self) -> dict[str, object]:
        """Return what stands behind the name in the JSON object."""
        value = None if self.value is None else round(self.value, 3)
        return {
            "value": value,
            "unit": self.unit,
            "goal": self.goal,
            "baseline": self.baseline,
            "holds": self.holds,
        }


def seconds(name: str, times: Times, told: str) -> Figure:
    """Return a duration as a figure; its spread goes before what is told of its baseline."""
    return Figure(name, times.median, "s", f"{times}; {told}")


def ratio(
    name: str, ours: Times, theirs: Times, baseline: str, at_most: float | None = None
) -> Figure:
    """Return how many times longer ours takes than the baseline, medians of the same run."""
    return Figure(
        name, ours.median / theirs.median, "ratio", f"{ours} to {theirs} of {baseline}", at_most
    )


def as_json(figures: Iterable[Figure]) -> str:
    """Return all figures as one line of JSON."""
    return json.dumps({figure.name: figure.as_data() for figure in figures}, ensure_ascii=False)


def as_table(title: str, figures: Iterable[Figure]) -> Table:
    """Return all figures as a table for people."""
    table = Table(title=title)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for column in ("unit", "goal"):
        table.add_column(column, no_wrap=True)
    table.add_column("measured, against which baseline")
    table.add_column("holds", no_wrap=True)
    for figure in figures:
        value = "not measured" if figure.value is None else f"{figure.value:.2f}"
        table.add_row(
            figure.name,
            value,
            figure.unit,
            figure.goal or "-",
            figure.baseline,
            figure.verdict,
        )
    return table
