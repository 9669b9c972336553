"""The console as an ASGI application: routes, what frames every answer, and errors as pages."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from holdfast_console import models, signing_in
from holdfast_console.desk import Desk
from holdfast_console.registry import Registry, RegistryError
from holdfast_console.sessions import Sessions
from holdfast_console.templates import STATIC, Templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from holdfast_console.settings import Settings

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_FRAME: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_application(settings: Settings) -> ASGIApp:
    """Return the console for these settings."""
    desk = Desk(settings, Registry(settings.registry), Sessions(settings), Templates())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await desk.registry.close()

    async def failed(request: Request, error: Exception) -> Response:
        return _failed(desk, request, error)

    async def unexpected(request: Request, _: Exception) -> Response:
        words = "The console made a mistake; its log has more."
        return desk.page(request, "problem.html", status=500, title="Error", words=words)

    application = Starlette(
        routes=[
            Route("/", _home),
            Route("/healthz", _health),
            *signing_in.routes(desk),
            *models.routes(desk),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={RegistryError: failed, HTTPException: failed, Exception: unexpected},
        lifespan=lifespan,
    )
    return _Framed(application)


class _Framed:
    """What holds for every answer: nothing foreign runs or loads in it, and nobody keeps it."""

    def __init__(self, application: ASGIApp) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""

        async def send_framed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_FRAME)
                kept = scope["path"].startswith("/static/")
                headers["Cache-Control"] = "max-age=3600" if kept else "no-store"
            await send(message)

        await self.application(scope, receive, send_framed)


async def _home(_: Request) -> Response:
    return RedirectResponse("/models", 303)


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _failed(desk: Desk, request: Request, error: Exception) -> Response:
    """Show what went wrong; a token that holds no longer leads back to the door."""
    if isinstance(error, RegistryError):
        status, words = error.status, error.message
    elif isinstance(error, HTTPException):
        status, words = error.status_code, error.detail
    else:  # the type that starlette passes is wider
        raise error
    if status == 401 and desk.sessions.read(request) is not None:
        response: Response = RedirectResponse("/sign-in?ended=1", 303)
        desk.sessions.end(response)
        return response
    return desk.page(
        request,
        "problem.html",
        status=status,
        title=HTTPStatus(status).phrase,
        words=words,
    )
