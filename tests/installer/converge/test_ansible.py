from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from holdfast_installer.converge.ansible import _DieWith

# A parent that starts a child as apply starts Ansible, says its number and waits to be killed.
PARENT = """
import os, subprocess, sys, time
from holdfast_installer.converge.ansible import _DieWith
child = subprocess.Popen(["sleep", "60"], start_new_session=True, preexec_fn=_DieWith(os.getpid()))
print(child.pid, flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_child_dies_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert runs(child)
        parent.kill()
    deadline = time.monotonic() + 10
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def test_a_child_whose_parent_was_faster_to_die_does_not_begin() -> None:
    somebody_else = _DieWith(os.getppid())
    done = subprocess.run(["true"], check=False, preexec_fn=somebody_else)
    assert done.returncode == 1
