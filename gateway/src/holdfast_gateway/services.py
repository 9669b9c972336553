"""The parts a running gateway is made of, opened and closed together."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from holdfast_gateway.access import Access
from holdfast_gateway.budgets.reservations import Budgets
from holdfast_gateway.chain.upstream import Upstream
from holdfast_gateway.client import Inflight
from holdfast_gateway.config import Config, Model
from holdfast_gateway.fairness.admission import Fairness
from holdfast_gateway.metering.journal import Journal
from holdfast_gateway.metering.recorder import Recorder
from holdfast_gateway.metering.usage import UsageStore

_LAST_WRITES_SECONDS = 15.0


@dataclass(frozen=True)
class Services:
    """What the endpoints use."""

    config: Config
    access: Access
    upstream: Upstream
    recorder: Recorder
    fairness: Fairness
    budgets: Budgets = field(default_factory=Budgets)
    inflight: Inflight = field(default_factory=Inflight)
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
    recorder = Recorder(store, journal, config.limits.usage_backlog)
    try:
        async with Upstream(config.limits) as upstream:
            yield Services(config, access, upstream, recorder, Fairness(config))
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
    finally:
        store.close()
        access.close()
