"""The door: a token opens it, and the registry says whose it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse
from starlette.routing import Route

from holdfast_console.registry import RegistryError
from holdfast_console.sessions import MAX_TOKEN_LENGTH, Session

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_console.desk import Desk


def routes(desk: Desk) -> list[Route]:
    """Return the routes."""

    async def show(request: Request) -> Response:
        words = ""
        if request.query_params.get("ended"):
            words = "Your session has ended: the token is no longer valid. Sign in again."
        return desk.page(request, "sign_in.html", words=words, following=_following(request))

    async def enter(request: Request) -> Response:
        desk.check_origin(request)
        token = (await desk.form(request)).get("token", "").strip()
        try:
            name = await _owner(desk, token)
        except RegistryError as error:
            if error.status != 401:
                raise
            return desk.page(
                request,
                "sign_in.html",
                status=401,
                words="The registry does not know this token: it is mistyped, expired or revoked.",
                following=_following(request),
            )
        response = RedirectResponse(_following(request), 303)
        desk.sessions.write(response, Session(name, token))
        return response

    async def leave(request: Request) -> Response:
        desk.check_origin(request)
        response = RedirectResponse("/sign-in", 303)
        desk.sessions.end(response)
        return response

    return [
        Route("/sign-in", show, methods=["GET"]),
        Route("/sign-in", enter, methods=["POST"]),
        Route("/sign-out", leave, methods=["POST"]),
    ]


async def _owner(desk: Desk, token: str) -> str:
    # A header carries it: what no header can carry is no token.
    if not token or len(token) > MAX_TOKEN_LENGTH or not (token.isascii() and token.isprintable()):
        raise RegistryError(401, "not a token")
    return str((await desk.registry.whoami(token))["name"])


def _following(request: Request) -> str:
    """Return where to go from here: a path of ours, never another site."""
    following = request.query_params.get("next", "")
    ours = following.startswith("/") and not following.startswith(("//", "/\\"))
    return following if ours else "/models"
