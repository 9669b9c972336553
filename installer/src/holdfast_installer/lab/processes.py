"""Find and end what runs in a lab, by what the kernel knows and not by remembered numbers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from holdfast_installer.errors import HoldfastError

NETNS = Path("/run/netns")
_ADMINISTRATION = "/usr/local/sbin:/usr/sbin:/sbin"


class Process(NamedTuple):
    """A process of this machine."""

    pid: int
    parent: int
    command: tuple[str, ...]


def search_path() -> str:
    """Return PATH with the folders of `ip` and its like, which `su` leaves out."""
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_ADMINISTRATION}"


def environment() -> dict[str, str]:
    """Return this process's environment with that PATH."""
    return {**os.environ, "PATH": search_path()}


def run(command: list[str], *, check: bool = True) -> str:
    """Run a command and return its stdout; a failure carries the last line of its stderr."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if check and done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise HoldfastError(
            f"{' '.join(command)} failed with status {done.returncode}",
            cause=lines[-1] if lines else "it said nothing",
        )
    return done.stdout


def detach(command: list[str], log: Path) -> None:
    """Start a process that outlives this one, in a session of its own, writing to `log`."""
    with log.open("ab") as file:
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd="/",
            env=environment(),
            check=True,
        )


def all_processes() -> list[Process]:
    """Return every process that can be seen, those that end meanwhile left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            decoded = tuple(part.decode(errors="replace") for part in command)
            found.append(Process(int(entry.name), int(parent), decoded))
    return found


def of_namespaces(prefix: str) -> list[int]:
    """Return the processes whose network namespace is a named one beginning with `prefix`."""
    wanted = set()
    for path in NETNS.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            wanted.add((path.stat().st_dev, path.stat().st_ino))
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "ns/net").stat()
                if (status.st_dev, status.st_ino) in wanted:
                    found.append(int(entry.name))
    return found


def ancestors() -> set[int]:
    """Return this process and those that started it."""
    parents = {process.pid: process.parent for process in all_processes()}
    found, pid = set(), os.getpid()
    while pid and pid not in found:
        found.add(pid)
        pid = parents.get(pid, 0)
    return found


def init_of(nspawn: int) -> int | None:
    """Return the PID 1 of the container that `nspawn` runs, or None before it exists."""
    for process in all_processes():
        if process.parent != nspawn:
            continue
        with contextlib.suppress(OSError):
            status = (Path("/proc") / str(process.pid) / "status").read_text()
            line = next(text for text in status.splitlines() if text.startswith("NSpid:"))
            if line.split()[-1] == "1" and len(line.split()) > 2:
                return process.pid
    return None


def kill(pids: list[int], *, patience: float = 10.0) -> None:
    """Kill and wait until the last is gone; a process that stays is an error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + patience
    while left := [pid for pid in pids if _lives(pid)]:
        if time.monotonic() > deadline:
            raise HoldfastError(
                f"processes {', '.join(map(str, left))} do not end",
                cause="they were killed and are still there, likely waiting for a disk",
            )
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    """Tell whether `pid` still runs; a zombie, whose parent is not ours to kill, does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        state = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
