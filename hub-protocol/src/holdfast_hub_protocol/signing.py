"""Short-lived signed texts: upload URLs that carry no token, and tokens of one purpose."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.blobs import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SECRET_BYTES: Final = 32
_LONGEST: Final = 4096


class BadSignatureError(Exception):
    """A text that was not signed here, for another purpose, or too long ago."""


class Signer:
    """Signs claims with HMAC-SHA256; one key for each purpose, all from one secret."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"a signing secret has at least {SECRET_BYTES} bytes")
        self._secret = secret
        self._clock = clock

    def sign(self, purpose: str, claims: Mapping[str, Any], seconds: float) -> str:
        """Return text for URLs and headers that says `claims` (JSON) for so many seconds."""
        document = {**claims, "exp": int(self._clock() + seconds)}
        body = _encode(json.dumps(document, separators=(",", ":")).encode())
        return f"{body}.{_encode(self._code(purpose, body))}"

    def verify(self, purpose: str, text: str) -> dict[str, Any]:
        """Return the claims, with `exp` in Unix seconds; BadSignatureError for anything else."""
        body, dot, code = text.partition(".")
        if not dot or len(text) > _LONGEST or not text.isascii():
            raise BadSignatureError("malformed")
        # Before anything of it is read: what is not signed is not parsed.
        if not hmac.compare_digest(_encode(self._code(purpose, body)), code):
            raise BadSignatureError("not signed here for this")
        try:
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (binascii.Error, ValueError) as error:  # we signed it: not from outside
            raise BadSignatureError("malformed") from error
        if self._clock() >= claims["exp"]:
            raise BadSignatureError("expired")
        return dict(claims)

    def _code(self, purpose: str, body: str) -> bytes:
        key = hmac.digest(self._secret, purpose.encode(), hashlib.sha256)
        return hmac.digest(key, body.encode(), hashlib.sha256)


def read_or_make_secret(path: Path) -> bytes:
    """Return the secret in a file; the first who asks makes it, for its user alone."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(new, path)  # unlike a rename, it lets only one of several win
        sync_folder(path.parent)
    finally:
        new.unlink()
    return path.read_bytes()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
