"""The table against the replicas' counters: agree, explained, differ, or unread."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from gateway_parts import COMMAND, write_config
from metering_parts import NOON, row
from scripted_prometheus import ScriptedPrometheus

from holdfast_gateway.metering.agreement import Agreement, agreements
from holdfast_gateway.metering.monitoring import Monitoring
from holdfast_gateway.metering.reports import Question
from holdfast_gateway.metering.usage import UsageStore

if TYPE_CHECKING:
    from pathlib import Path

AT = NOON.timestamp()
HOUR = Question(since=NOON, until=NOON + timedelta(hours=1))
Samples = list[tuple[float, float]]


def compared(
    store: UsageStore, prompt: list[Samples], completion: list[Samples]
) -> list[Agreement]:
    counters = {"prompt_tokens": prompt, "generation_tokens": completion}
    series = {
        name: [
            ({"model_name": "org/model", "instance": f"h{at}:8400"}, points)
            for at, points in enumerate(each)
        ]
        for name, each in counters.items()
    }
    with ScriptedPrometheus(series) as prometheus, store.engine.connect() as connection:
        return agreements(connection, Monitoring(prometheus.url), HOUR)


def test_they_agree_over_replicas_that_came_went_and_began_anew(store: UsageStore) -> None:
    store.insert([row(f"r{at}", prompt_tokens=10, completion_tokens=20) for at in range(4)])
    found = compared(
        store,
        [[(AT - 15, 100.0), (AT + 15, 110.0), (AT + 30, 120.0)], [(AT + 600, 20.0)]],
        # The first was started again in between: what it counts falls and begins at nothing.
        [[(AT - 15, 500.0), (AT + 15, 530.0), (AT + 30, 10.0)], [(AT + 600, 40.0)]],
    )
    assert [(each.kind, each.table, each.replicas, each.verdict) for each in found] == [
        ("prompt", 40, 40, "agree"),
        ("completion", 80, 80, "agree"),
    ]


@pytest.mark.parametrize(
    ("rows", "verdict", "words"),
    [
        ([row("r1"), row("r2", attempts=2)], "explained", "1 requests sent to a replica more"),
        ([row("r1"), row("r2", state="aborted")], "explained", "1 requests that ended early"),
        ([row("r1"), row("r2")], "differ", "somebody else asked the replicas"),
    ],
)
def test_what_the_replicas_counted_beyond_the_table(
    store: UsageStore, rows: list[object], verdict: str, words: str
) -> None:
    store.insert(rows)  # type: ignore[arg-type]  # rows, from above
    prompt, completion = compared(store, [[(AT + 60, 14.0)]], [[(AT + 60, 15.0)]])
    assert prompt.verdict == "agree"
    assert (completion.difference, completion.verdict) == (5, verdict)
    assert words in completion.why


def test_tokens_that_no_replica_counted_are_never_explained(store: UsageStore) -> None:
    store.insert([row("r1", attempts=2, state="aborted")])
    _, completion = compared(store, [[(AT + 60, 7.0)]], [[(AT + 60, 4.0)]])
    assert (completion.difference, completion.verdict) == (-1, "differ")


def test_no_counters_is_unread_and_not_in_order(store: UsageStore) -> None:
    store.insert([row("r1")])
    assert [each.verdict for each in compared(store, [], [])] == ["unread", "unread"]


@pytest.mark.parametrize(("counted", "code"), [(5.0, 0), (6.0, 3)])
def test_the_command_says_it_by_its_exit_code(tmp_path: Path, counted: float, code: int) -> None:
    series = {
        "prompt_tokens": [({"model_name": "org/model"}, [(AT + 60, 7.0)])],
        "generation_tokens": [({"model_name": "org/model"}, [(AT + 60, counted)])],
    }
    with ScriptedPrometheus(series) as prometheus:
        config = write_config(tmp_path, "http://127.0.0.1:1", prometheus=prometheus.url)
        store = UsageStore(f"sqlite:///{tmp_path}/usage.db")
        store.create_schema()
        store.insert([row("r1")])
        store.close()
        command = [*COMMAND, "usage", "--config", str(config), "--check", "--json"]
        command += ["--since", "2026-01-20", "--until", "2026-01-20T13:00"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    verdicts = [each["verdict"] for each in json.loads(done.stdout)]
    assert verdicts == ["agree", "agree" if code == 0 else "differ"]
