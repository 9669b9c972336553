"""The calendar of budgets: minutes, days and months of UTC, as Unix seconds."""

from datetime import UTC, datetime, timedelta
from typing import Literal

Period = Literal["minute", "day", "month"]

_MINUTE = 60
_DAY = 86400


def start_of(period: Period | None, now: float) -> int:
    """Return when the window that holds `now` began; what has no period has one window, 0."""
    if period is None:
        return 0
    if period == "month":
        moment = datetime.fromtimestamp(now, UTC)
        return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp())
    length = _MINUTE if period == "minute" else _DAY
    return int(now // length * length)


def end_of(period: Period | None, start: int) -> float:
    """Return when the window that began at `start` is over."""
    if period is None:
        return float("inf")
    if period == "month":
        inside = datetime.fromtimestamp(start, UTC) + timedelta(days=32)
        return start_of("month", inside.timestamp())
    return start + (_MINUTE if period == "minute" else _DAY)


def stamp(moment: float) -> str:
    """Return a moment as people and programs read it: ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
