"""What may be leased: one gateway's statement against what the database holds, without I/O.

An account is what one subject has of one budget. `given` is all of the running window that has
left it: what gateways hold and what they have spent. A gateway states the sums it has by now, not
changes, so that a statement whose confirmation was lost can be made again: nothing is given or
taken back twice.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from holdfast_gateway.budgets.windows import Period, start_of

SOUGHT_SECONDS = 2.0
_SHARE = 4


@dataclass(frozen=True, slots=True)
class Row:
    """An account in the database. `sought_at`: somebody last found too little left in it then."""

    window: int = 0
    given: int = 0
    sought_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What a gateway holds of an account and has spent in the window; `seen_at` its heartbeat.

    `idle` is the part of `held` that no request had reserved then.
    """

    window: int
    held: int
    spent: int
    idle: int
    seen_at: float

    @property
    def total(self) -> int:
        """Return what this lease has taken out of the account."""
        return self.held + self.spent


@dataclass(frozen=True, slots=True)
class Statement:
    """What a gateway has of an account, and what it wants.

    `held` is leased and unspent, `idle` the part of it that is not reserved, `spent` all that it
    spent in `window`. `least` is what the smallest waiting request needs, `want` what all of them
    could use; 0 and 0 ask for nothing.
    """

    account: str
    period: Period | None
    limit: int
    window: int
    held: int
    idle: int
    spent: int
    least: int = 0
    want: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the database made of a statement; `granted` comes on top of what was held.

    `left` is what nobody has leased, `others` what other gateways hold unspent, `idle` what of it
    they can give back at once.
    `sought` tells that one of them needs what lies idle here. `now` is the database's time.
    """

    account: str
    window: int
    granted: int
    left: int
    others: int
    idle: int
    sought: bool
    now: float


def apply(
    row: Row, mine: Lease | None, others: Iterable[Lease], statement: Statement, now: float
) -> tuple[Row, Lease, Outcome]:
    """Return the account, the gateway's lease and the answer after one statement."""
    # A clock that jumps back finds the latest window there was: no window begins twice.
    window = max(row.window, start_of(statement.period, now))
    given = row.given if window == row.window else 0
    sought_at = row.sought_at
    held = spent = idle = 0
    known = mine if mine is not None and mine.window == window else Lease(window, 0, 0, 0, now)
    if statement.window == window:
        held, spent, idle = statement.held, statement.spent, statement.idle
        given += held + spent - known.total
    else:
        given -= known.held  # leased in an answer that never arrived
    left = statement.limit - given
    granted = _grant(left, statement)
    current = [each for each in others if each.window == window]
    elsewhere = sum(each.held for each in current)
    to_come = sum(each.idle for each in current)
    sought = sought_at > now - SOUGHT_SECONDS and sought_at <= now and not statement.least
    if statement.least and not granted and to_come:
        sought_at = now
    row = Row(window, given + granted, sought_at)
    lease = Lease(window, held + granted, spent, idle + granted, now)
    outcome = Outcome(
        statement.account, window, granted, left - granted, elsewhere, to_come, sought, now
    )
    return row, lease, outcome


def _grant(left: int, statement: Statement) -> int:
    """Return how much to lease: what is wanted, but near the wall little more than is needed."""
    if not statement.least or left < statement.least:
        return 0
    return min(statement.want, max(statement.least, left // _SHARE))


def without_dead_slots(
    row: Row, leases: dict[str, Lease], dead_before: float
) -> tuple[Row, list[str]]:
    """Take back the slots of gateways not seen since; return the account and their names.

    Only slots: what a dead gateway held of tokens or cost may have been spent, and stays given.
    """
    dead = [name for name, lease in leases.items() if lease.seen_at < dead_before]
    freed = sum(leases[name].total for name in dead)
    return replace(row, given=row.given - freed), dead
