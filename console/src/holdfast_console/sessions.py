"""Who is signed in: the token itself, sealed in a cookie; nothing is kept on the server.

What a page shows is what the services say to that token, so that a revoked one sees nothing more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_console.settings import Settings

LIFETIME_SECONDS: Final = 8 * 3600
MAX_TOKEN_LENGTH: Final = 512


@dataclass(frozen=True)
class Session:
    """A signed-in person: the name the registry knows them by, and their token."""

    name: str
    token: str


class Sessions:
    """Seals and opens session cookies."""

    def __init__(self, settings: Settings) -> None:
        self._fernet = Fernet(_key(settings.secret_file))
        self._secure = settings.origin.startswith("https://")
        # With the prefix a browser takes the cookie over TLS alone, for this very host.
        self.cookie = "__Host-holdfast" if self._secure else "holdfast"

    def read(self, request: Request) -> Session | None:
        """Return who the cookie stands for; None without one, or if it is not ours or too old."""
        sealed = request.cookies.get(self.cookie, "")
        try:
            document = json.loads(self._fernet.decrypt(sealed.encode(), ttl=LIFETIME_SECONDS))
            return Session(**document)
        except (InvalidToken, ValueError, TypeError):
            return None

    def write(self, response: Response, session: Session) -> None:
        """Put the session into the response's cookie."""
        response.set_cookie(
            self.cookie,
            self._fernet.encrypt(json.dumps(asdict(session)).encode()).decode(),
            max_age=LIFETIME_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Have the browser forget the session."""
        response.delete_cookie(
            self.cookie, path="/", secure=self._secure, httponly=True, samesite="strict"
        )


def _key(secret_file: Path | None) -> bytes:
    secret = secret_file.read_bytes() if secret_file else secrets.token_bytes(32)
    if len(secret) < 32:
        raise TrustError("the secret holds fewer than 32 bytes", where=str(secret_file))
    digest = hashlib.sha256(b"holdfast-console session\0" + secret).digest()
    return base64.urlsafe_b64encode(digest)
