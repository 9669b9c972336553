from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from gateway_parts import COMMAND, write_config
from scripted_upstream import MODEL

from holdfast_gateway.budgets.account import Account
from holdfast_gateway.budgets.command import standings
from holdfast_gateway.budgets.reservations import lease_store
from holdfast_gateway.config import Config, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast_gateway.budgets.lease_store import LeaseStore
    from holdfast_gateway.budgets.terms import Budget

BUDGETS: list[dict[str, Any]] = [
    {"user": "*", "tokens": 1000, "per": "day"},
    {"user": "ada", "tokens": 5000, "per": "day"},
    {"team": "*", "cost": 2, "per": "month", "model": MODEL},
    {"everybody": True, "concurrency": 8},
]

AMOUNTS = ["limit", "spent", "leased", "left"]


@pytest.fixture(params=["sqlite", "postgresql"])
def config(request: pytest.FixtureRequest, tmp_path: Path, postgresql: Callable[[], str]) -> Config:
    more = {"database": postgresql()} if request.param == "postgresql" else {}
    return load(write_config(tmp_path, "http://127.0.0.1:1", budgets=BUDGETS, **more))


def use(store: LeaseStore, budget: Budget, subject: str, spent: int, held: int) -> None:
    account = Account(budget, subject)
    statement = account.state(0.0, [spent + held])
    (outcome,) = store.exchange("one", [statement])
    account.hear(statement, outcome, 0.0)
    account.spent, account.reserved, account.free = spent, outcome.granted - spent, 0
    store.exchange("one", [account.state(0.5, ())])


def test_each_is_listed_with_what_is_left(config: Config) -> None:
    users, ada, team, _ = config.budgets
    store = lease_store(config)
    try:
        use(store, users, "eve", 100, 50)
        use(store, users, "ada", 1, 0)  # before ada was named: it counts
        use(store, ada, "ada", 1000, 0)
        use(store, team, "research", 1_500_000, 0)
    finally:
        store.close()
    found = {(each.subject_kind, each.subject): each for each in standings(config)}
    assert set(found) == {
        ("user", "eve"),
        ("user", "ada"),
        ("team", "research"),
        ("everybody", ""),
    }
    eve = found["user", "eve"]
    assert (eve.limit, eve.spent, eve.leased, eve.left) == (1000, 100, 50, 850)
    assert eve.renewed is not None
    assert eve.renewed.endswith("T00:00:00Z")
    assert (found["user", "ada"].limit, found["user", "ada"].spent) == (5000, 1001)
    research = found["team", "research"]
    assert (research.spent, research.left, research.model) == (1.5, 0.5, MODEL)
    assert (found["everybody", ""].left, found["everybody", ""].renewed) == (8, None)


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    file = write_config(tmp_path, "http://127.0.0.1:1", budgets=BUDGETS)
    command = [*COMMAND, "budgets", "--config", str(file)]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    head, ada, everybody = table.splitlines()
    assert head.split() == ["whose", "of", "per", "model", *AMOUNTS, "renewed"]
    assert ada.split()[:8] == ["user", "ada", "tokens", "day", "all", "5000", "0", "0"]
    assert everybody.split()[:3] == ["everybody", "concurrency", "all"]
    listed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert [each["limit"] for each in json.loads(listed)] == [5000, 8]


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    away = "postgresql+psycopg:///nothing?host=/nowhere"
    file = write_config(tmp_path, "http://127.0.0.1:1", budgets=BUDGETS, database=away)
    command = [*COMMAND, "budgets", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
