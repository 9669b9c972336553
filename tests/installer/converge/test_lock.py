from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from holdfast_installer.converge.lock import _is_our_orphan, boot_id


def holder(process: int, boot: str = "") -> dict[str, str]:
    return {"machine": platform.node(), "boot": boot or boot_id(), "process": str(process)}


def test_a_holder_that_runs_is_no_orphan() -> None:
    assert not _is_our_orphan(holder(os.getpid()))


def test_a_holder_that_is_gone_is_ours_to_wait_for() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert _is_our_orphan(holder(child.pid))


def test_a_holder_that_ended_unnoticed_is_gone_too() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert _is_our_orphan(holder(child.pid))


def test_what_ran_on_another_machine_is_never_ours() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert not _is_our_orphan(holder(child.pid, boot="another"))
    assert not _is_our_orphan({})
    assert not _is_our_orphan({"boot": boot_id(), "process": "?"})
