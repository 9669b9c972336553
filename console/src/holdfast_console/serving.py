"""Serving: granian around the application."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from holdfast_console.application import create_application
from holdfast_console.sessions import Sessions
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from holdfast_console.settings import Settings

_DRAIN_SECONDS: Final = 5  # browsers keep connections open without asking anything


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; TrustError if it cannot start.

    One worker process: pages are few, and without a secret file the session key is its own.
    """
    host, port = settings.address
    try:
        Sessions(settings)  # the worker would only say that it died
        # granian would panic
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise TrustError(
            f"the console cannot start on {settings.listen}",
            where=str(error.filename or settings.listen),
            cause=error.strerror or str(error),
        ) from error
    server = Granian(
        "holdfast_console.application:create_application",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        workers=1,
        workers_kill_timeout=_DRAIN_SECONDS,
        log_access=False,
    )
    server.serve(target_loader=functools.partial(create_application, settings), wrap_loader=False)
