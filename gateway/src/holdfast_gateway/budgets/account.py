"""What this gateway has of one subject's budget: whole numbers in memory, on the event loop."""

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast_gateway.budgets.lease_rules import Outcome, Statement
from holdfast_gateway.budgets.terms import Budget
from holdfast_gateway.budgets.windows import end_of

_IDLE_SECONDS = 1.0
_RESTATE_SECONDS = 5.0
_SHARE = 8


@dataclass(slots=True)
class Hold:
    """What one request has reserved of an account, in the window in which it began."""

    account: "Account"
    amount: int
    window: int = -1


class Account:
    """A leased part of a budget. Times are seconds of the monotonic clock, but for `ends`.

    `free` is leased and reserved by nobody, `reserved` what requests in progress hold, `spent` what
    this gateway spent in the running window. A grant moves into `free`; all else moves between the
    three, so that their sum is always what the database has given this gateway.
    """

    __slots__ = (
        "block",
        "budget",
        "ends",
        "free",
        "idle_elsewhere",
        "key",
        "left",
        "others_spent",
        "reserved",
        "short",
        "sought",
        "spent",
        "stated",
        "stated_at",
        "subject",
        "used_at",
        "window",
    )

    def __init__(self, budget: Budget, subject: str) -> None:
        self.budget = budget
        self.subject = subject
        self.key = budget.account(subject)
        self.window = -1
        self.ends = float("-inf")
        self.free = self.reserved = self.spent = 0
        self.left = self.idle_elsewhere = self.others_spent = 0
        self.block = 0
        self.sought = self.short = False
        self.used_at = self.stated_at = float("-inf")
        self.stated = (0, 0, 0)

    def can_give(self, amount: int, wall: float) -> bool:
        """Whether so much can be reserved without asking the database; `wall` is its time."""
        return self.free >= amount and wall < self.ends

    def take(self, hold: Hold, now: float) -> None:
        """Reserve what `can_give` allowed."""
        hold.window = self.window
        self.free -= hold.amount
        self.reserved += hold.amount
        self.used_at = now

    def release(self, hold: Hold, amount: int) -> None:
        """Free a part of what a request holds; a window that is over takes nothing back."""
        hold.amount -= amount
        if hold.window == self.window:
            self.reserved -= amount
            self.free += amount

    def charge(self, hold: Hold, amount: int) -> None:
        """Spend so much of what a request holds and free the rest; the hold is over."""
        if hold.window == self.window:
            self.reserved -= hold.amount
            self.spent += amount
            # Below zero where more was spent than reserved: then others get less.
            self.free += hold.amount - amount
        hold.amount = 0

    @property
    def used(self) -> int:
        """Return what is spent or held by requests in progress, as far as is known here."""
        return self.others_spent + self.spent + self.reserved

    @property
    def remaining(self) -> int:
        """Return what is left of the limit by now, never below zero."""
        return max(0, self.budget.limit - self.used)

    @property
    def empty(self) -> bool:
        """Whether nothing of it is held here, and the database knows all."""
        return self.stated == (0, 0, self.spent) and not (self.free or self.reserved)

    def hopeless(self, amount: int) -> bool:
        """Whether so much cannot be had in a moment, as the database last answered."""
        return self.left + max(self.free, 0) + self.idle_elsewhere < amount

    def due(self, now: float) -> bool:
        """Whether there is something to tell the database."""
        if (self.free, self.reserved, self.spent) != self.stated:
            return True
        if self.free and (self.sought or now - self.used_at >= _IDLE_SECONDS):
            return True
        return bool(self.free or self.reserved) and now - self.stated_at >= _RESTATE_SECONDS

    def state(self, now: float, needs: Sequence[int], *, keep: bool = False) -> Statement:
        """Say what is held and spent, what requests that wait need, and give back what is idle.

        What is given back can no longer be reserved here, whether the statement arrives or not:
        with `keep`, while they do not, nothing is.
        """
        self.free = max(self.free, 0)  # what was spent beyond a reservation is missing elsewhere
        least = want = 0
        idle = self.sought or now - self.used_at >= _IDLE_SECONDS
        if needs:
            # Twice as much each time it is soon used up: busy accounts ask seldom.
            soon = now - self.stated_at < _IDLE_SECONDS
            self.block = min(self.block * 2, self.budget.limit // _SHARE) if soon else 0
            self.block = max(self.block, sum(needs))
            if self.short and not keep:
                self.free = 0  # two gateways with a part each of what one request needs
            least = max(min(needs) - self.free, 1)
            want = max(self.block - self.free, least)
        elif idle and not keep:
            self.free = self.block = 0
        elif not keep:
            self.free = min(self.free, self.block, self.budget.limit // _SHARE)
        self.sought = False
        return Statement(
            account=self.key,
            period=self.budget.per,
            limit=self.budget.limit,
            window=self.window,
            held=self.free + self.reserved,
            idle=self.free,
            spent=self.spent,
            least=least,
            want=want,
        )

    def hear(self, statement: Statement, outcome: Outcome, now: float) -> None:
        """Take what the database answered to a statement."""
        held, idle, spent = statement.held, statement.idle, statement.spent
        if outcome.window != self.window:
            self.window = outcome.window
            self.ends = end_of(self.budget.per, outcome.window)
            self.free = self.reserved = self.spent = 0
            held = idle = spent = 0
        self.free += outcome.granted
        self.stated = (idle + outcome.granted, held - idle, spent)
        self.left, self.idle_elsewhere = outcome.left, outcome.idle
        self.others_spent = self.budget.limit - outcome.left - sum(self.stated) - outcome.others
        self.sought = outcome.sought
        self.short = bool(statement.least) and not outcome.granted
        self.stated_at = now
