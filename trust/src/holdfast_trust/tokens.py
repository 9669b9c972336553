"""The form of a token: `hft_`, 256 random bits in base62, six checking characters.

The check lets a mistyped token be told apart from an unknown one without asking the database;
it proves nothing, and no secret is ever stored: only the SHA-256 of the whole token is.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib

PREFIX = "hft_"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_BYTES = 32
_RANDOM_DIGITS = 43  # 62**43 > 2**256
_CHECK_DIGITS = 6  # 62**6 > 2**32, the width of the CRC


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_DIGITS)


def mint() -> str:
    """Return a new secret token."""
    body = _base62(int.from_bytes(secrets.token_bytes(_RANDOM_BYTES)), _RANDOM_DIGITS)
    return f"{PREFIX}{body}{_check(body)}"


def mistyped(token: str) -> bool:
    """Say whether `token` looks like one of ours but its checking characters do not fit."""
    if not token.startswith(PREFIX):
        return False
    rest = token.removeprefix(PREFIX)
    body, check = rest[:-_CHECK_DIGITS], rest[-_CHECK_DIGITS:]
    return len(rest) != _RANDOM_DIGITS + _CHECK_DIGITS or _check(body) != check


def digest(token: str) -> str:
    """Return what is stored of a token: its SHA-256 in hex (256 random bits need no salt)."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
