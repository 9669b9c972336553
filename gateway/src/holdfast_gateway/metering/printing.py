"""How a report is shown: a table for people, CSV for spreadsheets, JSON for programs."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from holdfast_gateway.metering.reports import MIXED, UsageSum

_MICRO = 1_000_000
_JOULES_OF_A_WATT_HOUR = 3600
# A spreadsheet takes a cell that begins so for a formula, wherever the text came from.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff0b", "\uff0d", "\uff1d", "\uff20")

Cell = str | int | float | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Report:
    """The sums of a time, by groups, and what all of it together came to.

    `drawn_joules` is what the hosts drew in that time, whether anybody asked them anything or not.
    `notes` say what could not be known, and why.
    """

    by: tuple[str, ...]
    since: datetime | None
    until: datetime | None
    rows: Sequence[UsageSum]
    total: UsageSum | None
    drawn_joules: float | None
    notes: tuple[str, ...]


def as_json(report: Report) -> str:
    """Return the report as one JSON object."""
    document = {
        "by": list(report.by),
        "since": report.since.isoformat() if report.since else None,
        "until": report.until.isoformat() if report.until else None,
        "rows": [_row(each, report.by) for each in report.rows],
        "total": None if report.total is None else _row(report.total, ()),
        "drawn_wh": _watt_hours(report.drawn_joules),
        "notes": list(report.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_csv(report: Report) -> str:
    """Return the groups as CSV (RFC 4180); a cell that a spreadsheet would calculate is quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    rows = [_row(each, report.by) for each in report.rows]
    columns = [*report.by, *_row(_NOTHING, ())]
    writer.writerow(columns)
    writer.writerows([[_harmless(row[column]) for column in columns] for row in rows])
    return text.getvalue()


def as_table(report: Report) -> str:
    """Return the groups and their total as text of aligned columns."""
    heads = [*report.by, *_HEADS]
    lines = [heads, *(_cells(each, report.by) for each in report.rows)]
    if report.total is not None and report.by:
        total = _cells(report.total, ())
        lines.append(["total", *[""] * (len(report.by) - 1), *total])
    shown = _aligned(lines, names=len(report.by))
    if report.drawn_joules is not None:
        idle = ""
        if report.total is not None and report.total.energy is not None:
            share = _ratio(report.total.energy.joules, report.drawn_joules, 4) or 0
            idle = f", {share:.0%} of it for these requests"
        shown.append(f"drawn by the hosts: {_number(_watt_hours(report.drawn_joules))} Wh{idle}")
    shown += [f"note: {note}" for note in report.notes]
    return "\n".join(shown)


_NOTHING = UsageSum((), 0, 0, 0, 0, 0, 0, 0, 0, 0, None, None)
_HEADS = (
    "requests",
    "aborted",
    "errors",
    "lost",
    "prompt",
    "cached",
    "completion",
    "unknown",
    "ttft ms",
    "cost",
    "Wh",
    "source",
    "tokens/Wh",
    "tokens/replica-hour",
)
_UNKNOWN = "?"
_LONG = 1000


def _row(each: UsageSum, by: Sequence[str]) -> Row:
    """Return one group as plain data, under the names that JSON and CSV have."""
    energy = each.energy
    watt_hours = None if energy is None else energy.joules / _JOULES_OF_A_WATT_HOUR
    counted = each.prompt_tokens - each.cached_tokens + each.completion_tokens
    return {
        **dict(zip(by, each.key, strict=False)),
        "requests": each.requests,
        "done": each.done,
        "aborted": each.aborted,
        "error": each.error,
        "lost": each.lost,
        "prompt_tokens": each.prompt_tokens,
        "cached_tokens": each.cached_tokens,
        "completion_tokens": each.completion_tokens,
        "unknown": each.unknown,
        "ttft_median_ms": None if each.ttft_median_ms is None else round(each.ttft_median_ms, 3),
        "cost": _money(each.cost),
        "currency": each.currency,
        "energy_wh": None if watt_hours is None else round(watt_hours, 6),
        "energy_source": None if energy is None else "+".join(sorted(energy.sources)),
        # For which part of the tokens the energy is known.
        "energy_coverage": _ratio(None if energy is None else energy.tokens, counted, 4),
        "tokens_per_wh": _ratio(None if energy is None else energy.tokens, watt_hours, 1),
        "replica_hours": None if each.replica_hours is None else round(each.replica_hours, 3),
        "tokens_per_replica_hour": _ratio(each.tokens, each.replica_hours, 1),
    }


def _ratio(part: float | None, whole: float | None, digits: int) -> float | None:
    return None if part is None or not whole else round(part / whole, digits)


def _cells(each: UsageSum, by: Sequence[str]) -> list[str]:
    row = _row(each, by)
    cost = each.currency if each.currency == MIXED else row["cost"]
    if each.cost is not None:
        cost = f"{cost} {each.currency}"
    return [
        *(str(row[name] or "-") for name in by),
        *(_number(row[name]) for name in _PLAIN),
        _number(row["ttft_median_ms"]),
        str(cost or "-"),
        _number(row["energy_wh"]),
        str(row["energy_source"] or _UNKNOWN),
        _number(row["tokens_per_wh"]),
        _number(row["tokens_per_replica_hour"]),
    ]


_PLAIN = (
    "requests",
    "aborted",
    "error",
    "lost",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "unknown",
)


def _aligned(lines: Sequence[Sequence[str]], *, names: int) -> list[str]:
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at < names else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _money(micro: int | None) -> str | None:
    """Return millionths as an exact decimal, never as a binary fraction."""
    return None if micro is None else f"{micro // _MICRO}.{micro % _MICRO:06d}"


def _watt_hours(joules: float | None) -> float | None:
    return None if joules is None else round(joules / _JOULES_OF_A_WATT_HOUR, 6)


def _number(value: Cell) -> str:
    if value is None:
        return _UNKNOWN
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < _LONG else f"{value:.0f}"
    return str(value)


def _harmless(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return f"'{cell}"
    return cell


FORMS: Final = {"table": as_table, "csv": as_csv, "json": as_json}
