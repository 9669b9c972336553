"""The ledger of leases: whatever gateways, networks and clocks do, no window is spent twice."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from holdfast_gateway.budgets.account import Account, Hold
from holdfast_gateway.budgets.lease_store import LeaseStore
from holdfast_gateway.budgets.terms import Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 1000
MINUTE = 60
START = 1_763_625_600.0  # a full minute
BUDGET = Budget.model_validate({"user": "ada", "tokens": LIMIT, "per": "minute"})
SLOTS = Budget.model_validate({"user": "ada", "concurrency": 5})

WHICH = st.integers(0, 2)
FAULT = st.sampled_from(["", "", "", "request lost", "answer lost"])


class Network:
    """A gateway's side of one account, with a line to the database that can fail either way."""

    def __init__(self, store: LeaseStore, name: str, budget: Budget) -> None:
        self.store = store
        self.name = name
        self.account = Account(budget, "ada")
        self.holds: list[Hold] = []
        self.monotonic = 0.0

    def exchange(self, *needs: int, fault: str = "", idle: bool = False) -> None:
        self.monotonic += 10 if idle else 0.01
        statement = self.account.state(self.monotonic, needs)
        if fault == "request lost":
            return
        (outcome,) = self.store.exchange(self.name, [statement])
        if fault != "answer lost":
            self.account.hear(statement, outcome, self.monotonic)

    def take(self, amount: int, clock: Clock) -> Hold | None:
        if not self.account.can_give(amount, clock.now):
            return None
        hold = Hold(self.account, amount)
        self.account.take(hold, self.monotonic)
        self.holds.append(hold)
        return hold

    def get(self, amount: int, clock: Clock) -> Hold | None:
        """Take with all the exchanges that a waiting request may cause."""
        for _ in range(20):
            hold = self.take(amount, clock)
            if hold is not None:
                return hold
            self.exchange(amount)
        return None

    def close(self) -> None:
        self.exchange(idle=True)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, postgresql: Callable[[], str]
) -> Callable[[], str]:
    if request.param == "postgresql":
        return postgresql
    return lambda: f"sqlite:///{tmp_path}/budgets.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: Callable[[], str], clock: Clock) -> Iterator[LeaseStore]:
    store = LeaseStore(database(), lease_seconds=45, clock=clock)
    store.create_schema()
    yield store
    store.close()


def spent(store: LeaseStore) -> int:
    (balance,) = store.balances()
    return balance.spent


class Machine(RuleBasedStateMachine):
    """Three gateways, one account, lines that fail, deaths, and a clock that jumps."""

    store: LeaseStore
    clock: Clock
    runs = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.runs += 1
        # A subject of its own for each run: the database stays.
        self.budget = BUDGET.model_copy(update={"model": f"run-{Machine.runs}"})
        self.names = 0
        self.gateways = [self.newborn() for _ in range(3)]
        self.used: defaultdict[int, int] = defaultdict(int)  # and what was held when one died

    def newborn(self) -> Network:
        self.names += 1
        return Network(self.store, str(self.names), self.budget)

    @rule(at=WHICH, amount=st.integers(1, 600), fault=FAULT, idle=st.booleans())
    def ask(self, at: int, amount: int, fault: str, *, idle: bool) -> None:
        gateway = self.gateways[at]
        if gateway.take(amount, self.clock) is None:
            gateway.exchange(amount, fault=fault, idle=idle)
            gateway.take(amount, self.clock)

    @rule(at=WHICH, fault=FAULT, idle=st.booleans())
    def tell(self, at: int, fault: str, *, idle: bool) -> None:
        self.gateways[at].exchange(fault=fault, idle=idle)

    @rule(at=WHICH, which=st.integers(0, 9), share=st.floats(0, 1))
    def settle(self, at: int, which: int, share: float) -> None:
        gateway = self.gateways[at]
        if gateway.holds:
            hold = gateway.holds.pop(which % len(gateway.holds))
            used = int(hold.amount * share)
            self.used[hold.window] += used
            gateway.account.charge(hold, used)

    @rule(at=WHICH, share=st.floats(0, 1))
    def count(self, at: int, share: float) -> None:
        for hold in self.gateways[at].holds:
            hold.account.release(hold, int(hold.amount * share))

    @rule(at=WHICH)
    def die(self, at: int) -> None:
        for hold in self.gateways[at].holds:
            self.used[hold.window] += hold.amount
        self.gateways[at] = self.newborn()

    @rule(seconds=st.sampled_from([-3600, -61, -1, 1, 30, 60, 61, 3600]))
    def jump(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def never_more_than_the_limit(self) -> None:
        used = self.used.copy()
        for gateway in self.gateways:
            for hold in gateway.holds:
                used[hold.window] += hold.amount
        assert all(amount <= LIMIT for amount in used.values()), used

    def teardown(self) -> None:
        for gateway in self.gateways:
            while gateway.holds:
                gateway.account.charge(gateway.holds.pop(), 0)
            gateway.exchange(idle=True)
            gateway.exchange(idle=True)
        key = self.gateways[0].account.key
        balance = next(each for each in self.store.balances() if each.account == key)
        # Only what gateways held that died is missing.
        living = {lease.account.window for lease in self.gateways}
        assert living == {balance.window}
        assert self.used[balance.window] <= balance.spent + balance.held <= LIMIT
        assert all(gateway.account.empty for gateway in self.gateways)
        if self.names == len(self.gateways):
            assert balance.spent == self.used[balance.window]


def test_no_window_is_ever_spent_twice(store: LeaseStore, clock: Clock) -> None:
    Machine.store, Machine.clock = store, clock
    run_state_machine_as_test(
        Machine,
        settings=settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True),
    )


def test_what_gateways_use_together_is_exactly_the_limit(store: LeaseStore, clock: Clock) -> None:
    one, two = Network(store, "one", BUDGET), Network(store, "two", BUDGET)
    got = 0
    for _ in range(40):
        for gateway in (one, two):
            hold = gateway.get(30, clock)
            if hold is not None:
                got += 30
                gateway.account.charge(hold, 30)
    assert got == 33 * 30  # 10 are left: less than one request needs
    for gateway in (one, two):
        gateway.close()
    assert [(each.spent, each.held) for each in store.balances()] == [(990, 0)]


def test_what_is_refunded_can_be_used_by_another_gateway(store: LeaseStore, clock: Clock) -> None:
    one, two = Network(store, "one", BUDGET), Network(store, "two", BUDGET)
    hold = one.get(1000, clock)
    assert hold is not None
    assert two.get(1, clock) is None
    one.account.charge(hold, 1)
    one.close()
    assert two.get(999, clock) is not None


def test_what_lies_idle_is_sought(store: LeaseStore, clock: Clock) -> None:
    """One gateway needs what another holds idle: it is told, and gives it back at once."""
    one, two = Network(store, "one", BUDGET), Network(store, "two", BUDGET)
    hold = one.get(1000, clock)
    assert hold is not None
    one.account.release(hold, 600)
    one.exchange()
    one.account.free, one.account.block = 600, 600  # busy a moment ago
    one.exchange()
    two.exchange(500)
    assert not two.account.hopeless(500)
    one.exchange()  # hears of it
    assert one.account.sought
    one.exchange()  # gives it back
    assert two.get(500, clock) is not None


def test_a_part_each_does_not_bar_both(store: LeaseStore, clock: Clock) -> None:
    one, two = Network(store, "one", BUDGET), Network(store, "two", BUDGET)
    for gateway in (one, two):
        hold = gateway.get(500, clock)
        assert hold is not None
        gateway.account.block = 500
        gateway.account.release(hold, 500)
    for _ in range(3):
        for gateway in (one, two):
            gateway.exchange(900)
    assert one.take(900, clock) or two.take(900, clock)


def test_refunds_of_a_busy_gateway_are_shared_beyond_an_eighth(
    store: LeaseStore, clock: Clock
) -> None:
    one = Network(store, "one", BUDGET)
    hold = one.get(900, clock)
    assert hold is not None
    one.account.charge(hold, 100)
    one.exchange()  # not idle: used a moment ago
    assert one.account.free == 1000 // 8


def test_a_statement_made_twice_counts_once(store: LeaseStore, clock: Clock) -> None:
    one = Network(store, "one", BUDGET)
    hold = one.get(400, clock)
    assert hold is not None
    one.account.charge(hold, 300)
    for _ in range(3):
        one.exchange(fault="answer lost")
    one.close()
    assert spent(store) == 300


def test_a_grant_whose_answer_was_lost_comes_back(store: LeaseStore, clock: Clock) -> None:
    one, two = Network(store, "one", BUDGET), Network(store, "two", BUDGET)
    one.exchange(1000, fault="answer lost")
    assert two.get(1, clock) is None
    one.exchange()
    assert two.get(1000, clock) is not None


def test_what_a_dead_gateway_held_counts_as_spent_until_the_renewal(
    store: LeaseStore, clock: Clock
) -> None:
    dead, two = Network(store, "dead", BUDGET), Network(store, "two", BUDGET)
    assert dead.get(1000, clock) is not None
    clock.now += 50
    assert spent(store) == 1000
    assert two.get(1, clock) is None
    clock.now += 10
    assert two.get(1000, clock) is not None


def test_a_clock_that_jumps_back_opens_no_window_again(store: LeaseStore, clock: Clock) -> None:
    one = Network(store, "one", BUDGET)
    hold = one.get(1000, clock)
    assert hold is not None
    one.account.charge(hold, 1000)
    one.close()
    clock.now -= 3600
    assert Network(store, "two", BUDGET).get(1, clock) is None
    clock.now += 3600 + 59.9
    assert Network(store, "three", BUDGET).get(1, clock) is None
    clock.now += 0.1
    assert Network(store, "four", BUDGET).get(1000, clock) is not None


def test_a_clock_that_jumps_forth_and_back_gives_one_window_once(
    store: LeaseStore, clock: Clock
) -> None:
    one = Network(store, "one", BUDGET)
    clock.now += 3600
    hold = one.get(700, clock)
    assert hold is not None
    one.account.charge(hold, 700)
    one.close()
    clock.now -= 3600
    two = Network(store, "two", BUDGET)
    assert two.get(400, clock) is None
    assert two.get(300, clock) is not None


def test_a_request_over_the_edge_of_a_window_is_charged_to_its_first(
    store: LeaseStore, clock: Clock
) -> None:
    one = Network(store, "one", BUDGET)
    clock.now += 59
    hold = one.get(1000, clock)
    assert hold is not None
    clock.now += 1
    assert one.take(1, clock) is None, "what was leased of a window ends with it"
    assert one.get(1000, clock) is not None
    one.account.charge(hold, 10)
    assert (one.account.free, one.account.reserved, one.account.spent) == (0, 1000, 0)


def test_a_limit_that_is_changed_holds_in_the_running_window(
    store: LeaseStore, clock: Clock
) -> None:
    hold = (one := Network(store, "one", BUDGET)).get(600, clock)
    assert hold is not None
    one.account.charge(hold, 600)
    one.close()
    less = Budget.model_validate({"user": "ada", "tokens": 500, "per": "minute"})
    assert Network(store, "two", less).get(1, clock) is None
    more = Budget.model_validate({"user": "ada", "tokens": 2000, "per": "minute"})
    assert Network(store, "three", more).get(1400, clock) is not None
    assert Network(store, "four", more).get(1, clock) is None


def test_more_than_was_reserved_is_charged_all_the_same(store: LeaseStore, clock: Clock) -> None:
    one = Network(store, "one", BUDGET)
    hold = one.get(100, clock)
    assert hold is not None
    one.account.charge(hold, 250)
    assert one.account.free < 0
    one.account.block = 1000
    one.exchange()
    assert Network(store, "three", BUDGET).get(751, clock) is None, "others have less at once"
    one.close()
    assert spent(store) == 250
    assert Network(store, "two", BUDGET).get(751, clock) is None


def test_slots_come_back_when_a_gateway_dies(store: LeaseStore, clock: Clock) -> None:
    dead, two = Network(store, "dead", SLOTS), Network(store, "two", SLOTS)
    for _ in range(5):
        assert dead.get(1, clock) is not None
    assert two.get(1, clock) is None
    clock.now += 46
    for _ in range(5):
        assert two.get(1, clock) is not None
    assert two.get(1, clock) is None


def test_slots_of_a_gateway_that_was_thought_dead_are_counted_again(
    store: LeaseStore, clock: Clock
) -> None:
    frozen, two = Network(store, "frozen", SLOTS), Network(store, "two", SLOTS)
    holds = [frozen.get(1, clock) for _ in range(5)]
    clock.now += 46
    first = two.get(1, clock)
    assert first is not None
    frozen.exchange()
    two.account.charge(first, 0)
    two.close()
    assert two.get(1, clock) is None, "all five still run"
    for hold in holds:
        assert hold is not None
        frozen.account.charge(hold, 0)
    frozen.close()
    assert two.get(1, clock) is not None
