"""Files and folders that appear whole or not at all, whatever kills the writer."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at `path` with `content`, or leave it as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            os.fchmod(handle, mode)
            target.write(content)
            target.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def publish(staged: Path, final: Path) -> None:
    """Put the folder `staged` in `final`'s place in one step; an older `final` is removed after."""
    if not final.exists():
        staged.rename(final)
    else:
        exchange = _LIBC.renameat2(
            _AT_FDCWD, os.fsencode(staged), _AT_FDCWD, os.fsencode(final), _RENAME_EXCHANGE
        )
        if exchange != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(final))
        shutil.rmtree(staged)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def only_one(path: Path, *, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; the kernel frees it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(handle, 100, 0).decode(errors="replace").strip() or "unknown"
            raise HoldfastError(
                f"Somebody else is {doing}",
                where=str(path),
                cause=f"held by process {holder}",
                next_command="wait for it to end, then run the same command again",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def die_with_parent() -> None:
    """Make the calling child end when its parent does; for `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def disk_full_told(folder: Path) -> Iterator[None]:
    """Turn "no space left" inside the block into a message that says where and how much."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise HoldfastError(
            "The disk is full; what was collected so far is kept",
            where=str(problem.filename or folder),
            cause=f"{free_bytes(folder):,} bytes are free",
            next_command="free some space, then run the same command again: it goes on from here",
        ) from problem


def free_bytes(folder: Path) -> int:
    """Return the bytes an unprivileged writer may still use where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_free(folder: Path, needed: int, *, purpose: str) -> None:
    """Refuse to start when `folder`'s file system cannot take `needed` more bytes."""
    free = free_bytes(folder)
    if free < needed:
        raise HoldfastError(
            f"Not enough disk space for {purpose}: nothing was started",
            where=str(folder),
            cause=f"{needed:,} bytes are needed and {free:,} are free",
            next_command="free some space, or choose another folder",
        )
