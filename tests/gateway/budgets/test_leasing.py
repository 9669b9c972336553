"""Waiting, grace and giving up: one gateway against a database that a test holds in its hands."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

import holdfast_gateway.budgets.leasing
from holdfast_gateway.budgets.account import Account, Hold
from holdfast_gateway.budgets.lease_rules import Lease, Outcome, Row, Statement, apply
from holdfast_gateway.budgets.leasing import AwayError, Leasing, ShortError, give_back
from holdfast_gateway.budgets.terms import Budget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

ADA = Budget.model_validate({"user": "ada", "tokens": 1000, "per": "month"})
SLOTS = Budget.model_validate({"team": "research", "concurrency": 2})
NOW = 1_763_625_600.0


class Database:
    """The rules without SQL; `away` and `hangs` do what they say."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.leases: dict[tuple[str, str], Lease] = {}
        self.away = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.exchanges = 0

    def exchange(self, gateway: str, statements: Sequence[Statement]) -> list[Outcome]:
        self.exchanges += 1
        self.hangs.wait()
        if statements:
            self.now()
        outcomes = []
        for statement in statements:
            name = statement.account
            others = [
                lease
                for (account, other), lease in self.leases.items()
                if account == name and other != gateway
            ]
            mine = self.leases.get((name, gateway))
            row = self.rows.get(name, Row())
            row, lease, outcome = apply(row, mine, others, statement, NOW)
            self.rows[name], self.leases[name, gateway] = row, lease
            outcomes.append(outcome)
        return outcomes

    def now(self) -> float:
        if self.away:
            raise OperationalError("SELECT", {}, Exception("away"))
        return NOW


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(test: Callable[[Database, Leasing, Time], Awaitable[None]], grace: float = 30) -> Database:
    database, time = Database(), Time()

    async def inside() -> None:
        leasing = Leasing(database, "one", grace, time)  # type: ignore[arg-type]  # LeaseStore's part of it
        leasing.start()
        try:
            await test(database, leasing, time)
        finally:
            database.hangs.set()
            await leasing.close()

    asyncio.run(inside())
    return database


def holds(leasing: Leasing, amount: int, budget: Budget = ADA, subject: str = "ada") -> Hold:
    account = leasing.accounts.get(budget.account(subject))
    if account is None:
        account = leasing.accounts[budget.account(subject)] = Account(budget, subject)
    return Hold(account, amount)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.005)


def test_what_is_leased_needs_no_database() -> None:
    async def test(database: Database, leasing: Leasing, _time: Time) -> None:
        await leasing.lease([first := holds(leasing, 100)])
        first.account.charge(first, 1)
        seen = database.exchanges
        for _ in range(50):
            hold = holds(leasing, 50)
            assert leasing.take([hold])
            hold.account.charge(hold, 1)
        assert database.exchanges <= seen + 1

    database = run(test)
    (lease,) = database.leases.values()
    assert (lease.held, lease.spent) == (0, 51)
    (row,) = database.rows.values()
    assert row.given == 51


def test_all_or_nothing_of_several_budgets() -> None:
    async def test(_database: Database, leasing: Leasing, _time: Time) -> None:
        for _ in range(2):
            await leasing.lease([holds(leasing, 100), holds(leasing, 1, SLOTS, "research")])
        with pytest.raises(ShortError) as short:
            await leasing.lease([holds(leasing, 100), holds(leasing, 1, SLOTS, "research")])
        assert short.value.hold.account.budget is SLOTS
        assert leasing.accounts[ADA.account("ada")].reserved == 200

    run(test)


def test_what_idles_in_one_budget_stays_for_a_request_that_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdfast_gateway.budgets.leasing, "_TICK_SECONDS", 0.0)

    async def test(_database: Database, leasing: Leasing, time: Time) -> None:
        held = [holds(leasing, 100), holds(leasing, 1, SLOTS, "research")]
        await leasing.lease(held)
        give_back(held[1:])
        time.now += 1.5
        await until(lambda: held[1].account.free == 0)  # idle, and handed back
        give_back(held[:1])  # idle as long, and not handed back yet
        await leasing.lease([holds(leasing, 100), holds(leasing, 1, SLOTS, "research")])

    run(test)


def test_idle_blocks_are_given_back() -> None:
    async def test(database: Database, leasing: Leasing, time: Time) -> None:
        await leasing.lease([hold := holds(leasing, 600)])
        hold.account.charge(hold, 100)
        time.now += 1.5
        await until(lambda: next(iter(database.leases.values())).held == 0)
        assert next(iter(database.rows.values())).given == 100

    run(test)


def test_a_request_that_is_larger_than_the_budget_asks_nobody() -> None:
    async def test(database: Database, leasing: Leasing, _time: Time) -> None:
        with pytest.raises(ShortError):
            await leasing.lease([holds(leasing, 1001)])
        assert database.exchanges == 0

    run(test)


def test_grace_lets_use_what_is_leased_and_then_nothing() -> None:
    async def test(database: Database, leasing: Leasing, time: Time) -> None:
        await leasing.lease([hold := holds(leasing, 500)])
        database.away = True
        hold.account.release(hold, 400)
        time.now += 0.1
        await until(lambda: leasing._failing_since is not None)
        time.now += 25
        seen = database.exchanges
        await until(lambda: database.exchanges > seen + 1)  # idle, but there is nobody to take it
        assert leasing.take([holds(leasing, 100)]), "leased, within the grace"
        with pytest.raises(AwayError):
            await leasing.lease([holds(leasing, 500)])
        time.now += 6
        with pytest.raises(AwayError):
            leasing.take([holds(leasing, 100)])
        database.away = False
        await until(lambda: leasing._failing_since is None)
        await leasing.lease([holds(leasing, 800)])

    run(test)


def test_a_database_is_away_until_it_answers() -> None:
    async def test(database: Database, leasing: Leasing, _time: Time) -> None:
        database.away = True
        with pytest.raises(AwayError):
            await leasing.lease([holds(leasing, 100)])
        await asyncio.sleep(1)
        assert leasing._failing_since is not None
        database.away = False
        await until(lambda: leasing._failing_since is None)
        await leasing.lease([holds(leasing, 100)])

    run(test)


def test_without_grace_nothing_is_used() -> None:
    async def test(database: Database, leasing: Leasing, time: Time) -> None:
        await leasing.lease([hold := holds(leasing, 500)])
        database.away = True
        hold.account.release(hold, 400)
        await until(lambda: leasing._failing_since is not None)
        time.now += 0.001
        with pytest.raises(AwayError):
            leasing.take([holds(leasing, 100)])

    run(test, grace=0)


def test_a_database_that_hangs_is_away_too() -> None:
    async def test(database: Database, leasing: Leasing, time: Time) -> None:
        await leasing.lease([hold := holds(leasing, 500)])
        database.hangs.clear()
        hold.account.release(hold, 400)
        seen = database.exchanges
        await until(lambda: database.exchanges > seen)
        time.now += 1
        assert leasing.take([holds(leasing, 100)])
        time.now += 60
        with pytest.raises(AwayError):
            leasing.take([holds(leasing, 100)])
        database.hangs.set()
        await until(lambda: leasing._asked_at is None)
        assert leasing.take([holds(leasing, 1)])

    run(test)


def test_a_client_that_leaves_while_it_waits_holds_nothing() -> None:
    async def test(database: Database, leasing: Leasing, _time: Time) -> None:
        database.hangs.clear()
        waiting = asyncio.create_task(leasing.lease([holds(leasing, 500)]))
        await until(lambda: database.exchanges)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        database.hangs.set()
        await leasing.lease([holds(leasing, 1000)])

    run(test)


class Leaving(Account):
    """Lets the client go in the moment in which it gets what it waited for."""

    __slots__ = ("waiting",)

    def take(self, hold: Hold, now: float) -> None:
        super().take(hold, now)
        asyncio.get_running_loop().call_soon(self.waiting.cancel)


def test_a_client_that_leaves_in_the_moment_of_the_grant_holds_nothing() -> None:
    async def test(_database: Database, leasing: Leasing, _time: Time) -> None:
        account = leasing.accounts[ADA.account("ada")] = Leaving(ADA, "ada")
        hold = holds(leasing, 700)
        waiting = account.waiting = asyncio.create_task(leasing.lease([hold]))
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert (hold.window >= 0, account.reserved, account.free) == (True, 0, 700)

    run(test)


def test_accounts_that_nobody_uses_are_forgotten_and_found_again() -> None:
    async def test(_database: Database, leasing: Leasing, time: Time) -> None:
        await leasing.lease([hold := holds(leasing, 100)])
        hold.account.charge(hold, 100)
        time.now += 2
        await until(lambda: hold.account.empty)
        time.now += 61
        await until(lambda: not leasing.accounts)
        with pytest.raises(ShortError):
            await leasing.lease([holds(leasing, 901)])
        await leasing.lease([holds(leasing, 900)])

    database = run(test)
    assert next(iter(database.rows.values())).given == 1000
