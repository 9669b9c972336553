"""Serving: granian around the application, and an end that leaves nobody half answered."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from holdfast_gateway.app import Gateway
from holdfast_gateway.config import Config
from holdfast_gateway.services import Services

_KILL_AFTER_SECONDS = 30  # beyond drain_seconds: errors sent, usage written
_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        # Standard error: standard output is for data.
        "console": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stderr",
            "formatter": "plain",
        }
    },
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {
        "holdfast": {"level": "INFO"},
        "_granian": {"level": "INFO", "handlers": [], "propagate": True},
        "granian.access": {"level": "WARNING", "handlers": [], "propagate": True},
    },
}


def check_address(config: Config) -> None:
    """Raise OSError if the address to listen on cannot be had; granian would panic."""
    host, port = _address(config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; then take no more, let requests end, write what is unwritten.

    One worker process: it holds the streams and the connection pool, and one core carries more
    streams than a pool's replicas produce. Further gateways are further services.
    """
    host, port = _address(config)
    server = Granian(
        "holdfast_gateway.app:Gateway",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=1,
        workers_kill_timeout=int(config.limits.drain_seconds) + _KILL_AFTER_SECONDS,
        log_dictconfig=_LOGGING,
    )
    server.serve(target_loader=partial(Gateway, config, _watch), wrap_loader=False)


def _address(config: Config) -> tuple[str, int]:
    host, _, port = config.listen.rpartition(":")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def _watch(services: Services) -> AsyncIterator[None]:
    """Bound the drain, and end with the parent process.

    granian stops listening on SIGTERM and then waits for open connections without end. So SIGTERM
    is ours here: it starts the clock after which running requests are told, and then stops granian
    by the other signal it obeys.
    """
    loop = asyncio.get_running_loop()

    def drain() -> None:
        loop.call_later(services.config.limits.drain_seconds, services.inflight.stop_all)
        signal.raise_signal(signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, drain)
    parent = asyncio.create_task(_follow_parent())
    try:
        yield
    finally:
        parent.cancel()


async def _follow_parent() -> None:
    """Stop when the process that started us is gone: no orphan keeps the port."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # no event tells of it
        await asyncio.sleep(1)
    signal.raise_signal(signal.SIGTERM)
