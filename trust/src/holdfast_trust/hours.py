"""The hours of the day at which an agent may act, in UTC: a site's hosts may stand in two zones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast_trust.errors import TrustError

_FORM: Final = re.compile(
    r"([01][0-9]|2[0-4])(?::([0-5][0-9]))?-([01][0-9]|2[0-4])(?::([0-5][0-9]))?"
)
_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """Minutes of the day in UTC, `first` within and `end` not; `end` before `first` is overnight.

    Where both are the same nothing is within: what a database says that cannot be understood.
    """

    first: int
    end: int

    def cover(self, at: float) -> bool:
        """Tell whether a moment (Unix seconds) is within."""
        minute = int(at // 60) % _DAY
        if self.first <= self.end:
            return self.first <= minute < self.end
        return minute >= self.first or minute < self.end

    def __str__(self) -> str:
        return "-".join(f"{at // 60:02}:{at % 60:02}" for at in (self.first, self.end))


NEVER: Final = Hours(0, 0)


def checked_hours(text: str) -> Hours:
    """Return the hours of `08-18` or `22:30-06:00`; raise `TrustError` for anything else."""
    found = _FORM.fullmatch(text)
    if found:
        begin, begin_minute, end, end_minute = (int(part or 0) for part in found.groups())
        hours = Hours(begin * 60 + begin_minute, end * 60 + end_minute)
        if hours.first < _DAY and hours.end <= _DAY and hours.first != hours.end:
            return hours
    raise TrustError(
        f"{text!r} are no hours",
        cause="hours are like 08-18 or 22:30-06:00, in UTC, the end not included",
    )


def read_hours(text: str | None) -> Hours | None:
    """Return the hours as the database has them; what cannot be understood is no hour at all."""
    if text is None:
        return None
    try:
        return checked_hours(text)
    except TrustError:
        return NEVER
