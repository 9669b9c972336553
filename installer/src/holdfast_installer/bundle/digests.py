"""SHA-256 as it is written everywhere in a bundle, and git's object names beside it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 1 << 21  # bytes a read: large enough that hashlib runs without the interpreter's lock

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


def digest_of_bytes(data: bytes) -> str:
    """Return "sha256:<hex>" of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return "sha256:<hex>" of a file's content, read once, front to back."""
    state = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as source:
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := source.readinto(buffer):
            state.update(buffer[:count])
    return "sha256:" + state.hexdigest()


def hex_of(digest: str) -> str:
    """Return the hexadecimal part of "sha256:<hex>"."""
    return digest.removeprefix("sha256:")


def blob_path(blobs: Path, digest: str) -> Path:
    """Return where a blob lies under a `blobs` folder: sha256/ab/abcd…."""
    name = hex_of(digest)
    return blobs / "sha256" / name[:2] / name


def git_object_name(kind: str, content: bytes) -> str:
    """Return the SHA-1 name git gives an object; it is an identity here, not a protection."""
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def git_blob_of_file(path: Path) -> str:
    """Return git's blob name of a file without reading it into memory at once."""
    state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()
