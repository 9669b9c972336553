"""Where Prometheus reads: a door of its own on loopback, that no request from outside can reach."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from holdfast_gateway.metering.exposition import CONTENT_TYPE, Gauge
from holdfast_gateway.metering.meters import Meters

log = logging.getLogger("holdfast.gateway")

_RETRY_SECONDS = 1.0


@asynccontextmanager
async def listening(
    address: str | None, meters: Meters, *, in_flight: Callable[[], int]
) -> AsyncIterator[None]:
    """Answer GET /metrics on ADDRESS:PORT, or nowhere.

    A port that is taken is tried again every second: a predecessor that finishes its last requests
    may hold it still, and no request should wait for a number.
    """
    if address is None:
        yield
        return
    meters.watch(
        Gauge("holdfast_gateway_in_flight", "Requests that are being answered or wait.", in_flight)
    )
    app = web.Application()
    app.router.add_get("/metrics", _Page(meters).show)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    opening = asyncio.create_task(_open(runner, address))
    try:
        yield
    finally:
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        await runner.cleanup()


class _Page:
    def __init__(self, meters: Meters) -> None:
        self._meters = meters

    async def show(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=self._meters.text().encode(), headers={"Content-Type": CONTENT_TYPE}
        )


async def _open(runner: web.AppRunner, address: str) -> None:
    host, _, port = address.rpartition(":")
    told = False
    while True:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            if not told:
                log.warning("%s is taken, metrics wait for it: %s", address, error)
            told = True
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return
