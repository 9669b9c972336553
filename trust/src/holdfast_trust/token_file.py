"""A token kept in a file for a service: issued once, replaced only when it no longer holds."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    return store.kept(secret, principal, name)


class Place:
    """Where a secret will be kept: found writable before anything is issued."""

    def __init__(self, path: Path, fresh: Path, file: TextIO) -> None:
        self._path = path
        self._fresh = fresh
        self._file = file

    def keep(self, secret: str) -> None:
        """Put the secret in the file, whole or not at all."""
        try:
            self._file.write(f"{secret}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._fresh.replace(self._path)
        except OSError as error:
            raise _unwritten(self._path, error, "a token was issued and lost: ") from error


@contextmanager
def place(path: Path) -> Iterator[Place]:
    """Make a private file (0600) beside `path`; it takes its place when the secret is kept."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise _unwritten(path, error, "no token was issued: ") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield Place(path, fresh, file)
    finally:
        fresh.unlink(missing_ok=True)


def _unwritten(path: Path, error: OSError, so: str) -> TrustError:
    return TrustError(
        f"{so}its file cannot be written",
        where=str(path),
        cause=error.strerror or str(error),
        next_command="make the place writable and run the same command again, "
        "with --rotate if a token was issued",
    )
