"""Budgets through real gateway processes: many clients, two gateways, deaths and databases away."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from budget_parts import EACH, Answers, ask, ask_as_eve, balance, body, gateway_with, recorded
from gateway_parts import until
from scripted_upstream import PROMPT_TOKENS, ScriptedUpstream

from postgresql_server import Server, postgresql_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOR_FIFTY: dict[str, Any] = {"user": "ada", "tokens": 50 * EACH, "per": "month"}
SPENT = (429, "budget_exceeded")
AWAY = (503, "budgets_unavailable")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, postgresql: Callable[[], str]) -> str:
    if request.param == "postgresql":
        return postgresql()
    return f"sqlite:///{tmp_path}/shared.db"


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/shared.db"


@pytest.fixture
def shared(postgresql: Callable[[], str]) -> str:
    return postgresql()


@pytest.fixture
def own_postgresql() -> Iterator[Server]:
    """Start one that the test may stop."""
    with postgresql_server() as server:
        yield server


def test_two_hundred_at_once_get_exactly_what_is_there(
    tmp_path: Path, upstream: ScriptedUpstream, database: str
) -> None:
    with gateway_with(tmp_path / "one", upstream.url, [FOR_FIFTY], database=database) as one:
        answers = ask([one.url], 200, delay=0.02)
        assert answers.outcomes == {(200, None): 50, SPENT: 150}
        assert answers.tokens == 50 * EACH
    assert (balance(database).spent, balance(database).held) == (50 * EACH, 0)
    assert recorded(database) == 50 * EACH
    assert sum(seen.produced for seen in upstream.requests) + 50 * PROMPT_TOKENS == 50 * EACH


def test_two_gateways_give_no_token_twice(
    tmp_path: Path, upstream: ScriptedUpstream, database: str
) -> None:
    with (
        gateway_with(tmp_path / "one", upstream.url, [FOR_FIFTY], database=database) as one,
        gateway_with(tmp_path / "two", upstream.url, [FOR_FIFTY], database=database) as two,
    ):
        answers = ask([one.url, two.url], 200, delay=0.02)
        assert answers.tokens <= 50 * EACH
        assert answers.done >= 49
        assert answers.outcomes[SPENT] == 200 - answers.done
    assert (balance(database).spent, balance(database).held) == (answers.tokens, 0)
    assert recorded(database) == answers.tokens


def test_overestimates_come_back_until_nearly_all_is_used(
    tmp_path: Path, upstream: ScriptedUpstream, shared: str
) -> None:
    context = 4 * EACH
    with (
        gateway_with(
            tmp_path / "one", upstream.url, [FOR_FIFTY], database=shared, context=context
        ) as one,
        gateway_with(
            tmp_path / "two", upstream.url, [FOR_FIFTY], database=shared, context=context
        ) as two,
    ):
        answers = ask([one.url, two.url], 200, at_once=4)
    assert 50 * EACH - context < answers.tokens <= 50 * EACH
    assert balance(shared).spent == answers.tokens


def test_what_was_spent_outlives_a_restart(
    tmp_path: Path, upstream: ScriptedUpstream, sqlite: str
) -> None:
    with gateway_with(tmp_path / "one", upstream.url, [FOR_FIFTY], database=sqlite) as one:
        assert ask([one.url], 30).done == 30
        assert one.stop() == 0
    with gateway_with(tmp_path / "two", upstream.url, [FOR_FIFTY], database=sqlite) as two:
        assert ask([two.url], 40).outcomes == {(200, None): 20, SPENT: 20}


def test_a_killed_gateway_takes_what_it_held_along_and_never_more(
    tmp_path: Path, upstream: ScriptedUpstream, shared: str
) -> None:
    with gateway_with(tmp_path / "one", upstream.url, [FOR_FIFTY], database=shared) as one:
        assert ask([one.url], 10, at_once=1).done == 10
        found: list[Answers] = []
        waiting = threading.Thread(target=lambda: found.append(ask([one.url], 3, delay=5)))
        waiting.start()
        until(lambda: upstream.active == 3)
        workers = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text()
        for pid in (one.process.pid, *map(int, workers.split())):
            os.kill(pid, signal.SIGKILL)
        one.process.wait()
        waiting.join()
        assert found[0].outcomes == {(0, "gone"): 3}
    with gateway_with(tmp_path / "two", upstream.url, [FOR_FIFTY], database=shared) as two:
        answers = ask([two.url], 60)
    # 10 were done, 3 may have been: what a block held beside them is lost, at most an eighth.
    assert 50 - 13 - 50 // 8 <= answers.done <= 50 - 13
    assert balance(shared).spent <= 50 * EACH


def test_nothing_is_given_away_while_postgresql_is_away(
    tmp_path: Path, upstream: ScriptedUpstream, own_postgresql: Server
) -> None:
    database = own_postgresql()
    budget = {"user": "ada", "tokens": 2000 * EACH, "per": "month"}
    with gateway_with(
        tmp_path / "one",
        upstream.url,
        [budget],
        database=database,
        budget_rules={"grace_seconds": 1},
    ) as one:
        before = ask([one.url], 100, at_once=8)
        assert before.done == 100
        own_postgresql.stop()
        time.sleep(2.5)
        during = ask([one.url], 20, at_once=8)
        assert during.outcomes == {AWAY: 20}
        assert ask_as_eve(one.url).status_code == 200, "under no budget: not affected"
        own_postgresql.start()
        until(lambda: one.post(body()).status_code == 200)
        assert ask([one.url], 50, at_once=8).done == 50
    assert balance(database).spent == 151 * EACH


def test_postgresql_may_restart_under_load(
    tmp_path: Path, upstream: ScriptedUpstream, own_postgresql: Server
) -> None:
    database = own_postgresql()
    budget = {"user": "ada", "tokens": 400 * EACH, "per": "month"}
    with (
        gateway_with(tmp_path / "one", upstream.url, [budget], database=database) as one,
        gateway_with(tmp_path / "two", upstream.url, [budget], database=database) as two,
    ):
        found: list[Answers] = []
        load = threading.Thread(
            target=lambda: found.append(ask([one.url, two.url], 600, at_once=16, delay=0.01))
        )
        load.start()
        until(lambda: len(upstream.requests) > 50)
        own_postgresql.stop()
        own_postgresql.start()
        load.join()
        (answers,) = found
        last = ask([one.url, two.url], 400, at_once=16)
        tokens = answers.tokens + last.tokens
    assert set(answers.outcomes) <= {(200, None), SPENT, AWAY}
    assert answers.outcomes[AWAY] < 300
    # What the crash of the server forgot was told again; nothing is lost, nothing doubled.
    assert 399 * EACH <= tokens <= 400 * EACH
    assert balance(database).spent == tokens
