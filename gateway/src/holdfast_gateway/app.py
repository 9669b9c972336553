"""The application: the routes there are, and one shape for every refusal."""

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import ip_address

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast_gateway.api.endpoints import ENDPOINTS, MESSAGES, shape_of
from holdfast_gateway.api.errors import SERVER_ERROR, ApiError, unknown_url
from holdfast_gateway.api.models import Models
from holdfast_gateway.config import Config
from holdfast_gateway.inference import Inference
from holdfast_gateway.services import Services, running

log = logging.getLogger("holdfast.gateway")

Watch = Callable[[Services], AbstractAsyncContextManager[None]]


class Gateway:
    """The ASGI application.

    Routes exist once the server has started: what they use must be opened in the worker process.
    `watch` is entered for as long as the services run.
    """

    def __init__(self, config: Config, watch: Watch | None = None) -> None:
        self._config = config
        self._watch = watch
        self._services: Services | None = None
        self._app = Starlette(
            lifespan=self._lifespan,
            exception_handlers={
                ApiError: _refuse,
                HTTPException: _not_found,
                Exception: _defect,
            },
        )
        self._app.router.redirect_slashes = False

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with running(self._config) as services:
            self._services = services
            app.router.routes.extend(_routes(services))
            if self._watch is None:
                yield
                return
            async with self._watch(services):
                yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, naming it in X-Request-Id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Ours alone: vLLM takes it as the name of the request, which no client may choose.
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                if scope["path"].startswith(MESSAGES):  # where Anthropic's clients look for it
                    headers.append((b"request-id", request_id.encode()))
                if self._services is not None and self._services.drain.leaving:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_id)


def _routes(services: Services) -> list[Route]:
    models = Models(services)
    inference: list[tuple[str, ASGIApp]] = [(path, Inference(path, services)) for path in ENDPOINTS]
    return [
        *(Route(path, endpoint) for path, endpoint in inference),
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{model_id:path}", models.retrieve, methods=["GET"]),
        Route("/healthz", _Health(services).check, methods=["GET"]),
    ]


class _Health:
    """Whether this gateway can do its work; asked by the machine it runs on, without a token."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def check(self, request: Request) -> Response:
        # The edge connects from loopback too, and says for whom.
        passed_on = "x-forwarded-for" in request.headers
        if passed_on or request.client is None or not ip_address(request.client.host).is_loopback:
            raise unknown_url(request.method, request.url.path)
        trouble = ""
        if self._services.drain.leaving:
            trouble = "leaving: running requests are finished"
        elif self._services.recorder.full:
            trouble = "usage cannot be recorded"
        return JSONResponse({"status": trouble or "ok"}, status_code=503 if trouble else 200)


def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    body = error.body(shape_of(request.scope["path"], request.headers), request.state.request_id)
    return Response(body, error.status, headers=error.headers, media_type="application/json")


def _not_found(request: Request, _error: Exception) -> Response:
    return _refuse(request, unknown_url(request.method, request.url.path))


def _defect(request: Request, error: Exception) -> Response:
    request_id = request.state.request_id
    log.error("%s: defect", request_id, exc_info=error)
    message = f"The gateway failed. Tell your operator this request: {request_id}."
    return _refuse(request, ApiError(500, message, code="internal_error", kind=SERVER_ERROR))
