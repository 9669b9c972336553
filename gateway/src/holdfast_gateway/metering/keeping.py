"""Keeping the hosts' energy: Prometheus forgets it, the usage database does not."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway.metering import energy
from holdfast_gateway.metering.monitoring import Monitoring, MonitoringError
from holdfast_gateway.metering.reports import Question
from holdfast_gateway.metering.usage import UsageStore

log = logging.getLogger("holdfast.gateway")

_EVERY_SECONDS = 3600.0
_LOOKS_BACK = timedelta(days=1)


@asynccontextmanager
async def keeping(store: UsageStore, prometheus: str | None) -> AsyncIterator[None]:
    """Copy the joules of the last day every hour, for as long as the gateway runs.

    Nothing waits for it and nothing fails with it: what could not be had is asked for again.
    """
    if prometheus is None:
        yield
        return
    task = asyncio.create_task(_keep(store, Monitoring(prometheus)))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _keep(store: UsageStore, monitoring: Monitoring) -> None:
    told = False
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        question = Question(since=datetime.now(UTC) - _LOOKS_BACK)
        try:
            await asyncio.to_thread(energy.collect, store.engine, monitoring, question)
        except (MonitoringError, SQLAlchemyError, OSError) as error:
            if not told:
                log.warning("the hosts' energy cannot be kept now: %s", error)
            told = True
        else:
            told = False
