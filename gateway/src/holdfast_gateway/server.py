"""Serving: granian around the application, and an end that leaves nobody half answered."""

import asyncio
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server import MPServer

from holdfast_gateway.app import Gateway
from holdfast_gateway.config import Config
from holdfast_gateway.services import Services

_KILL_AFTER_SECONDS = 30  # beyond drain_seconds: errors sent, usage written
# A worker that does not close its door by then hangs: with it no other could take the port.
_DOOR_SECONDS = 5.0
# Above what the edge sends: a connection that is not accepted is a health check not answered.
_CONNECTIONS = 4096
# An idle connection is closed by the edge, which is the one to write the next request to it: were
# we first, that request would be lost. Its clients may be idle for a minute, its pool for less.
_IDLE_MILLISECONDS = 300_000
_HEAD_MILLISECONDS = 30_000
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


def check_address(config: Config, *, patience: float = 0.0) -> None:
    """Raise OSError if the address to listen on cannot be had; granian would panic.

    For `patience` seconds a predecessor that is still closing its door is waited for.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            _bind(config)
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
        else:
            return


def serve(config: Config, *, hand_over: bool = False) -> None:
    """Serve until SIGTERM or SIGINT; then take no more, let requests end, write what is unwritten.

    One worker process: it holds the streams and the connection pool, and one core carries more
    streams than a pool's replicas produce. Further gateways are further services.

    With `hand_over` this process ends as soon as the worker has closed its door, and the worker
    alone stays until its streams have ended: the next start has the port meanwhile.
    """
    host, port = _address(config)
    limits = config.limits
    # Without an edge before us nobody else ends a client that sends its head byte by byte.
    idle = _IDLE_MILLISECONDS if hand_over else _HEAD_MILLISECONDS
    server = _Server(
        "holdfast_gateway.app:Gateway",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=idle),
        websockets=False,
        loop=Loops.uvloop,
        workers=1,
        backlog=_CONNECTIONS,
        backpressure=_CONNECTIONS,
        workers_kill_timeout=int(limits.leave_seconds + limits.drain_seconds) + _KILL_AFTER_SECONDS,
        log_dictconfig=_LOGGING,
    )
    if hand_over:
        server.handed_over = config
    server.serve(target_loader=partial(Gateway, config, _watch), wrap_loader=False)


class _Server(MPServer):
    """granian, which on SIGTERM may leave its worker to its streams."""

    handed_over: Config | None = None

    def shutdown(self, exit_code: int = 0) -> None:
        """End with the worker, or, when handing over, once the worker has closed its door."""
        config = self.handed_over
        if config is None or not self.interrupt_signal:
            super().shutdown(exit_code)  # type: ignore[no-untyped-call]  # granian's are not typed
            return
        workers = multiprocessing.active_children()
        for worker in workers:
            worker.terminate()
        try:
            check_address(config, patience=config.limits.leave_seconds + _DOOR_SECONDS)
        except OSError:
            for worker in workers:
                worker.kill()
        # An ordinary exit would wait for the worker, whose streams may take minutes.
        os._exit(0)


def _address(config: Config) -> tuple[str, int]:
    host, _, port = config.listen.rpartition(":")
    return host.strip("[]"), int(port)


def _bind(config: Config) -> None:
    host, port = _address(config)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family).close()


@asynccontextmanager
async def _watch(services: Services) -> AsyncIterator[None]:
    """Bound the drain, tell the supervisor when the door is open, and end with the parent process.

    granian stops listening on SIGTERM and then waits for open connections without end. So SIGTERM
    is ours here, and granian is stopped by the other signal it obeys.
    """
    loop = asyncio.get_running_loop()
    limits = services.config.limits

    def leave() -> None:
        services.drain.begin(
            services.inflight,
            partial(signal.raise_signal, signal.SIGINT),
            leave_seconds=limits.leave_seconds,
            drain_seconds=limits.drain_seconds,
        )

    async def follow_parent() -> None:
        """Leave when the process that started us is gone: no orphan keeps the port."""
        parent = os.getppid()
        while os.getppid() == parent:  # noqa: ASYNC110  # no event tells of it
            await asyncio.sleep(1)
        if not services.drain.leaving:
            leave()

    loop.add_signal_handler(signal.SIGTERM, leave)
    tasks = [asyncio.create_task(follow_parent())]
    supervisor = os.environ.get("NOTIFY_SOCKET")
    if supervisor:
        tasks.append(asyncio.create_task(_say_ready(supervisor, *_address(services.config))))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _say_ready(supervisor: str, host: str, port: int) -> None:
    """Tell systemd that requests are taken, once they are: granian listens after our start."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            break
        await asyncio.sleep(0.02)
    path = "\0" + supervisor[1:] if supervisor.startswith("@") else supervisor
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto(b"READY=1", path)
