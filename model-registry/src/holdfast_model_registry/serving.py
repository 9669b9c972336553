"""Serving: granian around the application."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.service import open_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from holdfast_model_registry.settings import Settings

_DRAIN_SECONDS: Final = 20
_LOGGING: Final = {
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
        "_granian": {"level": "INFO", "handlers": [], "propagate": True},
        "granian.access": {"level": "WARNING", "handlers": [], "propagate": True},
    },
}


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, in as many worker processes as the settings say."""
    host, port = settings.address
    _check_free(host, port)
    server = Granian(
        "holdfast_model_registry.serving:Worker",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=settings.workers,
        workers_kill_timeout=_DRAIN_SECONDS,
        log_dictconfig=_LOGGING,
    )
    server.serve(target_loader=functools.partial(Worker, settings), wrap_loader=False)


class Worker:
    """One process's registry: opened at its start, after the fork, and closed at its end."""

    def __init__(self, settings: Settings) -> None:
        self.service = open_service(
            settings.locations,
            settings.accelerate,
            settings.quotas.quotas,
            settings.signers,
            jurisdiction=settings.jurisdiction,
            kinds=settings.kinds,
            policy=read_policy(settings.policy),
            replicas=settings.replicas,
            xet_reads_over=settings.xet_reads_over,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] != "lifespan":
            await self.service.application(scope, receive, send)
            return
        async with _ends_with_parent():
            await receive()  # startup
            await send({"type": "lifespan.startup.complete"})
            await receive()  # shutdown
        self.service.close()
        await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _ends_with_parent() -> AsyncIterator[None]:
    """Stop when the process that started us is gone: no orphan keeps the port."""

    async def follow() -> None:
        parent = os.getppid()
        while os.getppid() == parent:  # noqa: ASYNC110 - the kernel sends no event for it
            await asyncio.sleep(1)
        signal.raise_signal(signal.SIGTERM)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise RegistryError(
            f"cannot listen on {host}:{port}",
            cause=error.strerror or str(error),
            next_command=f"ss -ltnp 'sport = :{port}', or give another --listen",
        ) from error
