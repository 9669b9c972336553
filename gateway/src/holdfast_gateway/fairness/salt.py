"""Salts for the prefix caches: shared inside a team, never across, and nobody can guess one."""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

_KEY_BYTES = 32


class SaltKeyError(OSError):
    """The key's file holds something else."""


class Salts:
    """Makes a salt of a name; the same key makes the same salt, after a restart too."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, name: str) -> str:
        """Return the salt of a team or a user: 64 hexadecimal digits, as vLLM accepts them."""
        known = self._known.get((kind, name))
        if known is None:
            text = f"{kind}\0{name}".encode()
            digest = hashlib.blake2b(text, digest_size=32, key=self._key, person=b"cache_salt")
            known = self._known[kind, name] = digest.hexdigest()
        return known


def load_key(path: Path) -> bytes:
    """Return the key in a file, made with mode 0600 where there is none.

    Several gateways may come here at once: the first one's key stands. Raises OSError.
    """
    with suppress(FileNotFoundError):
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)  # unlike a rename, it takes nobody's place
    finally:
        Path(name).unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise SaltKeyError(
            f"{path} holds {len(key)} bytes, not a key of {_KEY_BYTES}. Remove it: the next start "
            "makes a new one, and prefix caches start empty."
        )
    return key
