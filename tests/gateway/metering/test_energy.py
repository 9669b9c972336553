"""Joules of a host, shared by the tokens that were active; unknown is never zero."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from gateway_parts import write_config
from metering_parts import HOST, NOON, row
from scripted_prometheus import ScriptedPrometheus
from sqlalchemy import insert, select

from holdfast_gateway.config import load
from holdfast_gateway.metering import energy
from holdfast_gateway.metering.capacity import replica_hours
from holdfast_gateway.metering.command import report
from holdfast_gateway.metering.monitoring import Monitoring, MonitoringError
from holdfast_gateway.metering.printing import as_json
from holdfast_gateway.metering.reports import Energy, Key, Question
from holdfast_gateway.metering.usage import ENERGY

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_gateway.metering.usage import UsageStore

AT = int(NOON.timestamp())
OTHER = "serving-2.site.example"
HOUR = Question(by=("user",), since=NOON, until=NOON + timedelta(hours=1))


def drew(store: UsageStore, *intervals: tuple[str, int, float]) -> None:
    rows = [
        {"host": host, "start": AT + 300 * at, "joules": joules, "source": "nvml+rapl"}
        for host, at, joules in intervals
    ]
    with store.engine.begin() as connection:
        connection.execute(insert(ENERGY), rows)


def apportioned(store: UsageStore, question: Question = HOUR) -> dict[Key, Energy]:
    with store.engine.begin() as connection:
        return energy.apportion(connection, question)


def test_tokens_of_one_interval_share_its_joules(store: UsageStore) -> None:
    store.insert(
        [
            row("r1", prompt_tokens=10, cached_tokens=0, completion_tokens=20),
            row("r2", principal="eve", prompt_tokens=30, cached_tokens=30, completion_tokens=10),
            row("r3", principal="eve", host=OTHER),  # on a host of which nothing is known
            row("r4", principal="eve", host=None),  # nobody knows where
        ]
    )
    drew(store, (HOST, 0, 400.0), (HOST, 1, 999.0))
    found = apportioned(store)
    assert found == {
        ("ada",): Energy(pytest.approx(300.0), 30.0, {"nvml", "rapl"}),
        ("eve",): Energy(pytest.approx(100.0), 10.0, {"nvml", "rapl"}),
    }


def test_a_long_request_shares_each_interval_it_was_active_in(store: UsageStore) -> None:
    # From 12:04 to 12:09: a fifth of its 100 tokens in the first interval, the rest in the next.
    long = {"time": NOON + timedelta(minutes=4), "duration_ms": 300_000.0}
    store.insert(
        [
            row("r1", **long, prompt_tokens=0, cached_tokens=0, completion_tokens=100),
            row("r2", principal="eve", prompt_tokens=0, cached_tokens=0, completion_tokens=60),
        ]
    )
    drew(store, (HOST, 0, 800.0), (HOST, 1, 50.0))
    found = apportioned(store)
    assert found["ada",].joules == pytest.approx(800.0 * 20 / 80 + 50.0, rel=1e-3)
    assert found["eve",].joules == pytest.approx(800.0 * 60 / 80, rel=1e-3)
    assert sum(each.joules for each in found.values()) == pytest.approx(850.0)


def test_what_was_asked_before_the_time_takes_its_share_and_is_not_shown(
    store: UsageStore,
) -> None:
    before = {"time": NOON - timedelta(minutes=5), "duration_ms": 600_000.0}
    alike = {"prompt_tokens": 0, "cached_tokens": 0}
    store.insert(
        [
            row("r1", principal="eve", **before, **alike, completion_tokens=100),
            row("r2", **alike, completion_tokens=50),
        ]
    )
    drew(store, (HOST, 0, 100.0))
    found = apportioned(store)
    assert found == {("ada",): Energy(pytest.approx(50.0), 50.0, {"nvml", "rapl"})}


def test_without_any_measurement_there_is_nothing(store: UsageStore) -> None:
    store.insert([row("r1")])
    assert apportioned(store) == {}
    with store.engine.connect() as connection:
        assert energy.drawn(connection, HOUR) is None


def test_prometheus_is_asked_once_for_each_interval(store: UsageStore) -> None:
    store.insert([row("r1")])
    series = [
        ({"instance": f"{HOST}:9100", "source": source}, [(AT + 300, joules)])
        for source, joules in (("nvml", 300.0), ("rapl", 60.0))
    ]
    with ScriptedPrometheus({"holdfast_energy_joules_total": series}) as prometheus:
        monitoring = Monitoring(prometheus.url)
        for _ in range(2):
            energy.collect(store.engine, monitoring, HOUR)
        asked = [(int(each["start"]), int(each["end"])) for each in prometheus.asked]
    assert asked[0] == (AT + 300, AT + 3900)
    assert asked[1] == (AT + 600, AT + 3900)  # the rest, in case it is there now
    with store.engine.connect() as connection:
        rows = [tuple(each) for each in connection.execute(select(ENERGY))]
    assert rows == [(HOST, AT, 360.0, "nvml+rapl")]
    assert apportioned(store)["ada",].joules == pytest.approx(360.0)


def test_a_prometheus_that_is_away_is_an_error_not_a_zero(store: UsageStore) -> None:
    store.insert([row("r1")])
    with pytest.raises(MonitoringError):
        energy.collect(store.engine, Monitoring("http://127.0.0.1:9"), HOUR)
    with (
        ScriptedPrometheus(raw=b'{"status":"error"}') as prometheus,
        pytest.raises(MonitoringError, match="not an answer"),
    ):
        energy.collect(store.engine, Monitoring(prometheus.url), HOUR)
    assert apportioned(store) == {}


def test_replica_hours(store: UsageStore) -> None:
    store.insert([row("r1")])
    points = [(float(AT + 300 * at), 2.0 if at < 6 else 1.0) for at in range(12)]
    series = {"num_requests_running": [({"model_name": "org/model"}, points)]}
    with ScriptedPrometheus(series) as prometheus:  # type: ignore[arg-type]  # a list of one
        hours = replica_hours(store.engine, Monitoring(prometheus.url), HOUR)
    assert hours == {"org/model": pytest.approx(1.5)}


def test_the_report_adds_the_shares_up(store: UsageStore, tmp_path: Path) -> None:
    store.insert(
        [
            row("r1", prompt_tokens=0, cached_tokens=0, completion_tokens=30),
            row("r2", principal="eve", prompt_tokens=0, cached_tokens=0, completion_tokens=10),
        ]
    )
    drew(store, (HOST, 0, 7200.0), (OTHER, 0, 1800.0), (OTHER, 12, 9999.0))
    labels = ({"model_name": "org/model"}, [(float(AT + 300 * at), 2.0) for at in range(12)])
    with ScriptedPrometheus({"num_requests_running": [labels]}) as prometheus:
        config = load(write_config(tmp_path, "http://127.0.0.1:1", prometheus=prometheus.url))
        by_user = json.loads(as_json(report(store, config, HOUR)))
        by_model = json.loads(as_json(report(store, config, replace(HOUR, by=("model",)))))
    assert [each["energy_wh"] for each in by_user["rows"]] == [1.5, 0.5]
    assert (by_user["total"]["energy_wh"], by_user["total"]["tokens_per_wh"]) == (2.0, 20.0)
    assert (by_user["drawn_wh"], by_user["notes"]) == (2.5, [])
    assert by_user["rows"][0]["tokens_per_replica_hour"] is None
    assert by_model["rows"][0]["replica_hours"] == 2.0
    assert by_model["rows"][0]["tokens_per_replica_hour"] == 20.0


def test_a_report_without_prometheus_says_so_and_keeps_what_was_known(
    store: UsageStore, tmp_path: Path
) -> None:
    store.insert([row("r1")])
    drew(store, (HOST, 0, 3600.0))
    config = load(write_config(tmp_path, "http://127.0.0.1:1", prometheus="http://127.0.0.1:9"))
    found = report(store, config, HOUR)
    assert found.rows[0].energy == Energy(pytest.approx(3600.0), 8.0, {"nvml", "rapl"})
    assert "unknown" in found.notes[0]
