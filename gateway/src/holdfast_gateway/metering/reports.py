"""Sums over the usage table, by whatever one wants to know: added up by the database."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    RowMapping,
    String,
    case,
    func,
    literal_column,
    null,
    select,
)
from sqlalchemy.sql.elements import Label

from holdfast_gateway.metering.usage import USAGE

DIMENSIONS: Final = (
    "model",
    "revision",
    "user",
    "agent",
    "key",
    "team",
    "session",
    "day",
    "endpoint",
    "replica",
    "gateway",
)
MIXED = "mixed"
"""Instead of a currency: the sum would be of several."""

Key = tuple[str | None, ...]


@dataclass(frozen=True)
class Question:
    """What to add up: by which dimensions, from when (included) until when (not included)."""

    by: tuple[str, ...] = ("model", "user")
    since: datetime | None = None
    until: datetime | None = None


@dataclass
class Energy:
    """What was apportioned to some requests: joules, and the tokens for which they are known."""

    joules: float = 0.0
    tokens: float = 0.0
    sources: set[str] = field(default_factory=set)


@dataclass
class UsageSum:
    """Sums of one group. Unknown token counts add nothing; `unknown` says how many there are.

    `cost` is in millionths of `currency`; None where no tariff was known. `energy` is None where
    nobody measured or declared any: unknown, not zero. `replica_hours` is known for models only.
    """

    key: Key
    requests: int
    done: int
    aborted: int
    error: int
    lost: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    unknown: int
    cost: int | None
    currency: str | None
    ttft_median_ms: float | None = None
    energy: Energy | None = None
    replica_hours: float | None = None

    @property
    def tokens(self) -> int:
        """Return prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


def dimension(name: str, dialect: str) -> Label[str | None]:
    """Return the column of a dimension; for `user` whoever answers for it, an agent's owner."""
    columns = USAGE.c
    found: ColumnElement[str | None]
    if name == "user":
        found = func.coalesce(columns.owner, columns.principal)
    elif name == "agent":
        found = case((columns.principal_kind == "agent", columns.principal), else_=null())
    elif name == "key":
        found = columns.token
    elif name == "day" and dialect == "sqlite":
        found = func.substr(columns.time, 1, 10, type_=String)
    elif name == "day":
        found = func.to_char(func.timezone("UTC", columns.time), "YYYY-MM-DD", type_=String)
    else:
        found = columns[name]
    return found.label(f"by_{name}")


def conditions(question: Question) -> list[ColumnElement[bool]]:
    """Return the window as conditions on the table."""
    found: list[ColumnElement[bool]] = []
    if question.since is not None:
        found.append(USAGE.c.time >= question.since)
    if question.until is not None:
        found.append(USAGE.c.time < question.until)
    return found


def sums(connection: Connection, question: Question) -> list[UsageSum]:
    """Return the sums of each group, in the order of its names; what is empty comes last."""
    dialect = connection.dialect.name
    keys = [dimension(name, dialect) for name in question.by]
    columns = USAGE.c
    query = select(
        *keys,
        func.count().label("requests"),
        *(
            func.coalesce(func.sum(case((columns.state == state, 1), else_=0)), 0).label(state)
            for state in ("done", "aborted", "error", "lost")
        ),
        *(
            func.coalesce(func.sum(columns[name]), 0).label(name)
            for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
        ),
        (func.count() - func.count(columns.completion_tokens)).label("unknown"),
        func.sum(columns.cost).label("cost"),
        func.min(columns.currency).label("currency"),
        func.max(columns.currency).label("currency_too"),
        _median(dialect).label("median"),
    ).where(*conditions(question))
    if keys:
        query = query.group_by(*(literal_column(key.name) for key in keys))
    found: dict[Key, UsageSum] = {}
    for row in connection.execute(query).mappings():
        if row["requests"]:  # without groups there is one row, even for nothing
            each = _sum(tuple(row[key.name] for key in keys), row)
            found[each.key] = each
    return sorted(
        found.values(), key=lambda each: [(part is None, part or "") for part in each.key]
    )


def _sum(key: Key, row: RowMapping) -> UsageSum:
    mixed = row["currency"] != row["currency_too"]
    return UsageSum(
        key=key,
        requests=int(row["requests"]),
        done=int(row["done"]),
        aborted=int(row["aborted"]),
        error=int(row["error"]),
        lost=int(row["lost"]),
        prompt_tokens=int(row["prompt_tokens"]),
        cached_tokens=int(row["cached_tokens"]),
        completion_tokens=int(row["completion_tokens"]),
        unknown=int(row["unknown"]),
        cost=None if mixed or row["cost"] is None else int(row["cost"]),
        currency=MIXED if mixed else row["currency"],
        ttft_median_ms=row["median"],
    )


def _median(dialect: str) -> ColumnElement[float]:
    """Return the median of the time to the first token; SQLite's is `usage.Median`."""
    if dialect == "sqlite":
        return func.median(USAGE.c.ttft_ms, type_=Float)
    return func.percentile_cont(0.5).within_group(USAGE.c.ttft_ms)
