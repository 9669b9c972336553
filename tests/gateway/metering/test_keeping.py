"""Energy is kept while the gateway runs, and a Prometheus that is away disturbs nobody."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import pytest
from metering_parts import HOST
from scripted_prometheus import ScriptedPrometheus
from sqlalchemy import func, select

from holdfast_gateway.metering import keeping as module
from holdfast_gateway.metering.keeping import keeping
from holdfast_gateway.metering.usage import ENERGY

if TYPE_CHECKING:
    from holdfast_gateway.metering.usage import UsageStore


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_SECONDS", 0.02)


def kept(store: UsageStore) -> int:
    with store.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(ENERGY)) or 0


async def test_what_prometheus_knows_is_kept_before_anybody_asks(store: UsageStore) -> None:
    at = int(time.time()) // 300 * 300 - 600
    points = [(float(at), 5.0), (float(at + 300), 6.0)]
    labels = {"instance": f"{HOST}:9100", "source": "rapl"}
    with ScriptedPrometheus({"holdfast_energy_joules_total": [(labels, points)]}) as prometheus:
        async with keeping(store, prometheus.url), asyncio.timeout(10):
            while await asyncio.to_thread(kept, store) < 2:  # noqa: ASYNC110  # a database tells nobody
                await asyncio.sleep(0.02)


async def test_one_that_is_away_is_told_once(
    store: UsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with keeping(store, "http://127.0.0.1:9"):
            await asyncio.sleep(0.3)
    assert caplog.text.count("cannot be kept") == 1


async def test_without_one_nothing_runs(store: UsageStore) -> None:
    before = len(asyncio.all_tasks())
    async with keeping(store, None):
        assert len(asyncio.all_tasks()) == before
