"""A token kept in a file for a service: issued once, replaced only when it no longer holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_trust.issuance import IssuedToken
    from holdfast_trust.store import TrustStore


def holds_valid(store: TrustStore, path: Path, principal: str, name: str) -> str | None:
    """Return the id of the valid token of this principal and name in the file, if there is one."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise TrustError(
            "the token file cannot be read", where=str(path), cause=error.strerror or str(error)
        ) from error
    proven = store.authenticate(secret)
    if proven is None or proven.name != principal:
        return None
    named = {each["id"] for each in store.tokens(principal) if each["name"] == name}
    return proven.token_id if proven.token_id in named else None


def write(path: Path, token: IssuedToken) -> None:
    """Put the secret in the file, mode 0600, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{token.secret}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise TrustError(
            "the token was issued but its file could not be written",
            where=str(path),
            cause=error.strerror or str(error),
            next_command="make the place writable and run the same command: it issues afresh",
        ) from error
