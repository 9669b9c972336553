"""Write files so that a reader, or a kill at any byte, finds the old or the new, never a half."""

from __future__ import annotations

import grp
import os
import pwd
import tempfile
from pathlib import Path


def owner_ids(owner: str, group: str) -> tuple[int, int]:
    """Return the numeric (uid, gid) of two names; KeyError where one is unknown."""
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid


def attributes_differ(path: Path, mode: int, ids: tuple[int, int]) -> bool:
    """Tell whether an existing path has another mode or owner than wanted."""
    found = path.lstat()
    return (found.st_mode & 0o7777, found.st_uid, found.st_gid) != (mode, *ids)


def write(path: Path, data: bytes, mode: int, ids: tuple[int, int]) -> None:
    """Replace `path` by `data` in one step, with its mode and owner already right."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            os.fchown(stream.fileno(), *ids)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def link(path: Path, target: str) -> None:
    """Point the symbolic link `path` at `target` in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
