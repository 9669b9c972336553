"""The routes of the protocol as one ASGI application."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import sqlalchemy.exc
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast_hub_protocol import (
    access_requests,
    account,
    branches,
    cards,
    catalogue,
    committing,
    information,
    likes,
    organizations,
    preupload,
    references,
    repositories,
    resolve,
    tags,
    tensor_headers,
    tree,
)
from holdfast_hub_protocol.access import UnavailableError
from holdfast_hub_protocol.discussions import routes as discussion_routes
from holdfast_hub_protocol.endpoints import Hub, new_request_id
from holdfast_hub_protocol.errors import HubError, disk_full, is_disk_full
from holdfast_hub_protocol.lfs import routes as lfs_routes
from holdfast_hub_protocol.xet import routes as xet_routes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG: Final = logging.getLogger(__name__)
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))

# Each subject brings its own routes; their tables come with them.
_OF_THE_HUB: Final[Sequence[Callable[[Hub], list[Route]]]] = (
    account.routes,
    cards.routes,
    repositories.routes,
    organizations.routes,
    likes.routes,
    tags.routes,
)
# Files last: `/{namespace}/{name}/resolve/…` would match much of the others.
_OF_A_KIND: Final[Sequence[Callable[[Hub, str], list[Route]]]] = (
    catalogue.routes,
    information.routes,
    tree.routes,
    references.routes,
    repositories.repository_routes,
    preupload.routes,
    committing.routes,
    branches.routes,
    account.repository_routes,
    access_requests.routes,
    discussion_routes.routes,
    likes.repository_routes,
    tensor_headers.routes,
    lfs_routes.routes,
    xet_routes.routes,
    resolve.routes,
)


def create_application(
    hub: Hub, of_the_service: Sequence[Callable[[Hub], list[Route]]] = ()
) -> ASGIApp:
    """Return the application that serves repositories of the hub's kinds.

    `of_the_service` are the routes of whoever stands on the protocol, beside the protocol's own.
    """
    routes = [Route("/healthz", functools.partial(_health, hub), methods=["GET"])]
    for subject in (*_OF_THE_HUB, *of_the_service):
        routes += subject(hub)
    for subject_of_kind in _OF_A_KIND:
        for kind in hub.kinds:
            routes += subject_of_kind(hub, kind)
    application = Starlette(
        routes=routes,
        exception_handlers={
            HubError: _hub_error,
            HTTPException: _http_error,
            UnavailableError: _unavailable,
            sqlalchemy.exc.OperationalError: _unavailable,
            sqlalchemy.exc.TimeoutError: _unavailable,  # no connection was free
            OSError: _disk_error,
            Exception: _unexpected,
        },
    )
    # /a/b and /a/b/ are different names, and a redirect would tell whether the other exists.
    application.router.redirect_slashes = False
    return Frame(application)


class Frame:
    """What holds for every request: the path as sent, and an id for it.

    Servers hand over the path decoded, in which a branch `a%2Fb` cannot be told from a folder;
    routes match the encoded one, and handlers decode each part.
    """

    def __init__(self, application: Starlette) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        request_id = new_request_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        framed = {
            **scope,
            "path": quote(raw, safe=_PRINTABLE),
            "holdfast.request_id": request_id,
        }
        await self.application(framed, receive, send_with_id)


async def _health(hub: Hub, _: Request) -> Response:
    hub.metadata.ping()
    return JSONResponse({"status": "ok"})


async def _hub_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HubError):  # the type that starlette passes is wider
        raise error
    return error.response()


async def _http_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return HubError(error.status_code, error.detail, headers=dict(error.headers or {})).response()


async def _unavailable(request: Request, error: Exception) -> Response:
    _LOG.error("request %s: %s", request.scope["holdfast.request_id"], error)
    return HubError(503, "The registry cannot answer now; the log says why").response()


async def _disk_error(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and is_disk_full(error):
        _LOG.error("request %s: %s", request.scope["holdfast.request_id"], error)
        return disk_full().response()
    return await _unexpected(request, error)


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("request %s failed", request.scope["holdfast.request_id"], exc_info=error)
    return HubError(500, "Internal error; the log has more under the request id").response()
