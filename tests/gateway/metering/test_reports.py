"""Sums by whatever one asks for, the same from both databases."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from metering_parts import NOON, row

from holdfast_gateway.metering.printing import Report, as_csv, as_json, as_table
from holdfast_gateway.metering.reports import DIMENSIONS, MIXED, Energy, Question, UsageSum, sums

if TYPE_CHECKING:
    from holdfast_gateway.metering.usage import UsageStore

ROWS = [
    row("r1", ttft_ms=100.0, session="s1"),
    row("r2", ttft_ms=300.0, session="s1", state="aborted", status=499),
    row("r3", ttft_ms=None, stream=False, principal="bot", principal_kind="agent", owner="ada"),
    row("r4", ttft_ms=900.0, time=NOON - timedelta(days=1), state="error", status=502, cost=None),
    row("r5", principal="eve", team=None, completion_tokens=None, prompt_tokens=None, cost=None,
        cached_tokens=None, currency=None, state="lost", status=0, ttft_ms=None),
]  # fmt: skip


@pytest.fixture
def filled(store: UsageStore) -> UsageStore:
    store.insert(ROWS)
    return store


def ask(store: UsageStore, **more: object) -> list[UsageSum]:
    with store.engine.connect() as connection:
        return sums(connection, Question(**more))  # type: ignore[arg-type]  # as a test writes it


def test_all_together(filled: UsageStore) -> None:
    assert ask(filled, by=()) == [
        UsageSum(
            key=(), requests=5, done=2, aborted=1, error=1, lost=1, prompt_tokens=28,
            cached_tokens=16, completion_tokens=20, unknown=1, cost=3_000, currency="EUR",
            ttft_median_ms=300.0,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("user", {("ada",): 4, ("eve",): 1}),
        ("agent", {("bot",): 1, (None,): 4}),
        ("team", {("research",): 4, (None,): 1}),
        ("day", {("2026-01-19",): 1, ("2026-01-20",): 4}),
        ("session", {("s1",): 2, (None,): 3}),
        ("key", {("tok1",): 5}),
        ("revision", {("abc",): 5}),
    ],
)
def test_by_one(filled: UsageStore, by: str, expected: dict[tuple[str | None], int]) -> None:
    found = ask(filled, by=(by,))
    assert {each.key: each.requests for each in found} == expected
    assert [each.key for each in found] == list(expected)  # named first, by name


def test_every_dimension_there_is(filled: UsageStore) -> None:
    found = ask(filled, by=DIMENSIONS)
    assert sum(each.requests for each in found) == 5
    assert all(len(each.key) == len(DIMENSIONS) for each in found)


def test_the_median_of_each_group(filled: UsageStore) -> None:
    found = {each.key: each.ttft_median_ms for each in ask(filled, by=("day", "user"))}
    assert found == {
        ("2026-01-19", "ada"): 900.0,
        ("2026-01-20", "ada"): 200.0,
        ("2026-01-20", "eve"): None,
    }


def test_a_time(filled: UsageStore) -> None:
    assert [each.requests for each in ask(filled, by=(), since=NOON)] == [4]
    assert [each.requests for each in ask(filled, by=(), until=NOON)] == [1]
    assert ask(filled, by=(), since=NOON + timedelta(seconds=1)) == []
    assert ask(filled, since=NOON + timedelta(seconds=1)) == []


def test_two_currencies_have_no_sum(filled: UsageStore) -> None:
    filled.insert([row("r6", currency="CHF")])
    (total,) = ask(filled, by=())
    assert (total.cost, total.currency) == (None, MIXED)


ONE = UsageSum(("=cmd|'/c calc'!A1",), 2, 2, 0, 0, 0, 14, 8, 10, 0, 1_234_567, "EUR", 12.5)
REPORT = Report(("session",), NOON, None, [ONE], replace(ONE, key=()), None, ("a note",))


def test_csv_hands_no_formula_to_a_spreadsheet() -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\uff1d1", 'a"b,c', None]
    rows = [replace(ONE, key=(name,)) for name in hostile]
    found = list(csv.DictReader(io.StringIO(as_csv(replace(REPORT, rows=rows)))))
    assert [each["session"] for each in found] == [
        "'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "'\uff1d1", 'a"b,c', "",
    ]  # fmt: skip
    assert (found[0]["cost"], found[0]["currency"]) == ("1.234567", "EUR")
    assert found[0]["energy_wh"] == ""  # unknown, not zero
    assert "\r\n" in as_csv(REPORT)


def test_json_has_numbers_and_null_for_what_is_unknown() -> None:
    found = json.loads(as_json(REPORT))
    assert found["by"] == ["session"]
    assert found["since"] == "2026-01-20T12:00:00+00:00"
    assert found["rows"][0]["session"] == "=cmd|'/c calc'!A1"
    assert found["total"]["completion_tokens"] == 10
    assert found["total"]["energy_wh"] is None
    assert found["notes"] == ["a note"]


def test_the_table_shows_unknown_energy_as_unknown() -> None:
    known = replace(ONE, key=("s2",), energy=Energy(7200.0, 16.0, {"nvml", "rapl"}))
    known.replica_hours = 2.0
    lines = as_table(replace(REPORT, rows=[ONE, known], drawn_joules=36000.0)).splitlines()
    assert lines[1].split()[-5:] == ["EUR", "?", "?", "?", "?"]
    assert lines[2].split()[-5:] == ["EUR", "2", "nvml+rapl", "8", "12"]
    assert lines[3].startswith("total")
    assert lines[4] == "drawn by the hosts: 10 Wh"
    assert lines[5] == "note: a note"
    assert len({len(line.split()[0]) for line in lines[:1]}) == 1
