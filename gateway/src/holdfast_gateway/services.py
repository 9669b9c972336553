"""The parts a running gateway is made of, opened and closed together."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from holdfast_gateway.access import Access
from holdfast_gateway.budgets.reservations import Budgets, lease_store
from holdfast_gateway.budgets.reservations import opened as opened_budgets
from holdfast_gateway.chain.upstream import Upstream
from holdfast_gateway.client import Inflight
from holdfast_gateway.config import Config, Model
from holdfast_gateway.drain import Drain
from holdfast_gateway.fairness.admission import Fairness
from holdfast_gateway.fairness.gauges import lane_gauges
from holdfast_gateway.metering.journal import Journal
from holdfast_gateway.metering.keeping import keeping
from holdfast_gateway.metering.listener import listening
from holdfast_gateway.metering.opening import open_recorder
from holdfast_gateway.metering.recorder import Recorder
from holdfast_gateway.metering.usage import UsageStore
from holdfast_gateway.switches import Switches

_LAST_WRITES_SECONDS = 15.0


@dataclass(frozen=True)
class Services:
    """What the endpoints use."""

    config: Config
    access: Access
    upstream: Upstream
    recorder: Recorder
    fairness: Fairness
    switches: Switches
    budgets: Budgets = field(default_factory=Budgets)
    inflight: Inflight = field(default_factory=Inflight)
    drain: Drain = field(default_factory=Drain)
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def models(self) -> dict[str, Model]:
        """Return the models by id."""
        return self.config.models_by_id


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Services]:
    """Open everything; on leaving, write what is unwritten and close in the reverse order."""
    access = Access(config.trust)
    store = UsageStore(config.database)
    store.create_schema()
    journal = Journal(config.ledger)
    recorder = open_recorder(config, store, journal)
    try:
        inflight = Inflight()
        async with (
            Upstream(config.limits) as upstream,
            Switches(access, inflight, config.limits.blind_seconds) as switches,
            opened_budgets(config) as budgets,
            keeping(store, config.prometheus),
            listening(config.metrics, recorder.meters, in_flight=inflight.__len__),
        ):
            fairness = Fairness(config)
            for gauges in lane_gauges(fairness):
                recorder.meters.watch(gauges)
            yield Services(
                config, access, upstream, recorder, fairness, switches, budgets, inflight
            )
    finally:
        await asyncio.to_thread(recorder.close, _LAST_WRITES_SECONDS)
        journal.close()
        store.close()
        access.close()


def check(config: Config) -> None:
    """Open and close what lies on disk or in a database, to fail before there is a server."""
    access = Access(config.trust)
    store = UsageStore(config.database)
    try:
        access.check()
        Fairness(config)
        store.create_schema()
        Journal(config.ledger).close()
        lease_store(config).close()
    finally:
        store.close()
        access.close()
