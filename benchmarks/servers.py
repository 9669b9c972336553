"""Servers that a benchmark starts: what they and their children use, and their end."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workshop import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BIN = Path(sys.executable).parent
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Running:
    """A server that runs, with all its processes."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path = field(default_factory=Path)

    def pids(self) -> list[int]:
        """Return the server's processes, workers included."""
        family, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            family.append(pid)
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                waiting += [int(child) for child in children.split()]
        return family

    def processor(self) -> float:
        """Return what its processes have used of the processors so far, in seconds."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def memory(self) -> int:
        """Return what its processes hold in memory, each shared page counted once, in bytes."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total

    def stop(self) -> None:
        """End it; its processes are ours alone."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], port: int, folder: Path, ready: str = "/", **options: Path
) -> Iterator[Running]:
    """Run a server until the block ends; it is ready when it answers anything at `ready`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(each) for each in command], stdout=log, stderr=log, cwd=Path(__file__).parent
        )
    running = Running(f"http://127.0.0.1:{port}", process, **options)
    try:
        _wait(running, ready, folder / "log")
        yield running
    finally:
        running.stop()


def _wait(running: Running, ready: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            break
        try:
            opener.open(running.url + ready, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotMeasuredError(f"a server did not start: {log.read_text()[-500:]}")
