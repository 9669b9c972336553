"""What every page works with, and the door: who asks, and did their own page send it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_console.registry import Registry
    from holdfast_console.sessions import Session, Sessions
    from holdfast_console.settings import Settings
    from holdfast_console.templates import Templates

    Page = Callable[["Desk", Request, Session], Awaitable[Response]]


MAX_FORM_BYTES: Final = 64 << 10
MAX_FIELDS: Final = 8


@dataclass(frozen=True)
class Desk:
    """The services, the sessions and the templates."""

    settings: Settings
    registry: Registry
    sessions: Sessions
    templates: Templates

    def page(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        **values: Any,  # noqa: ANN401 - what the template shows
    ) -> Response:
        """Return a page, or the part of one that htmx asked for."""
        session = self.sessions.read(request)
        return self.templates.render(
            template,
            status,
            user=session.name if session else "",
            endpoint=self.settings.endpoint,
            part=request.headers.get("hx-request") == "true",
            **values,
        )

    async def form(self, request: Request) -> dict[str, str]:
        """Return the fields of a posted form (HTTPException 413 where they are too many)."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413, "this form holds too much")
        try:
            fields = parse_qs(body.decode("ascii"), max_num_fields=MAX_FIELDS, errors="strict")
        except (ValueError, UnicodeError):
            raise HTTPException(400, "this is no form") from None
        return {name: values[0] for name, values in fields.items()}

    def signed_in(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """Return the page behind the door: whoever is not signed in is led there and back."""

        @functools.wraps(page)
        async def guarded(request: Request) -> Response:
            if request.method == "POST":
                self.check_origin(request)
            session = self.sessions.read(request)
            if session is None:
                asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                following = asked if request.method == "GET" else "/models"
                return RedirectResponse(f"/sign-in?next={quote(following, safe='/')}", 303)
            return await page(self, request, session)

        return guarded

    def check_origin(self, request: Request) -> None:
        """Refuse what another site's page sent (HTTPException 403)."""
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site")
        if origin != self.settings.origin or site not in {None, "same-origin"}:
            raise HTTPException(403, f"this was not sent by a page of {self.settings.origin}")
