"""Run one host and run it again when it reboots; plain Python, one process a host.

Started as `python supervise.py SPEC`, where SPEC is JSON: command, environment, cgroups,
console, replug (commands that give the host a fresh network; a leading `-` may fail).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

REBOOT = 133  # what systemd-nspawn --keep-unit exits with when the host asks for a reboot


def enter_cgroups(folders: list[str]) -> None:
    """Move this process into its own cgroups: hosts must not share one."""
    for folder in folders:
        path = Path(folder)
        for last in (False, False, False, True):
            try:
                path.mkdir(parents=True, exist_ok=True)
                (path / "cgroup.procs").write_text(str(os.getpid()))
                break
            except FileNotFoundError:  # the end of another lab took an empty parent away
                if last:
                    raise


def boot(spec: dict[str, Any]) -> int:
    """Boot the host and return the status that systemd-nspawn ended with."""
    with Path(spec["console"]).open("ab") as console:
        child = subprocess.Popen(
            spec["command"],
            env=spec["environment"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
        )

    def end(_number: int, _frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, end)
    return child.wait()


def main(path: str) -> int:
    """Supervise until the host powers off or cannot start."""
    spec = json.loads(Path(path).read_text())
    enter_cgroups(spec["cgroups"])
    while True:
        status = boot(spec)
        if status != REBOOT:
            return status
        # The kernel removes the old container's cgroups a moment after its last process.
        time.sleep(0.2)
        for command in spec["replug"]:
            with contextlib.suppress(subprocess.CalledProcessError):
                may_fail = command[0] == "-"
                subprocess.run(
                    command[1:] if may_fail else command, check=not may_fail, capture_output=True
                )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
