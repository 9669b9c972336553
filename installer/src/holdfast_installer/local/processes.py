"""Processes as the kernel shows them: which belong to a session, and since when."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the command name, counted from the state.
_SESSION, _STARTED = 3, 19


def _stat(pid: int) -> list[str]:
    """Return the fields after the command's name, which may hold spaces and brackets itself."""
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def started_at(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 when it is gone."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields else 0


def kill_session(leader: int, started: int) -> int:
    """End everything in the session that `leader` opened at `started`; return how many it was.

    A session's number is not given to another process while a member lives; when the leader is
    there and began at another time, number and session are somebody else's and are left alone.
    So is session 0: in a PID namespace it is everybody whose session was opened outside.
    """
    if leader <= 0 or ((began := started_at(leader)) and began != started):
        return 0
    ended = 0
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        fields = _stat(int(entry.name))
        if fields and int(fields[_SESSION]) == leader and int(fields[_STARTED]) >= started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(entry.name), signal.SIGKILL)
                ended += 1
    return ended
