from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.converge.ansible import _DieWith, _environment, _why, collections_root
from holdfast_installer.converge.events import Event
from holdfast_installer.converge.journal import Journal

if TYPE_CHECKING:
    import pytest

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


def test_a_collection_in_the_operators_home_takes_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = tmp_path / "home/.ansible/collections/ansible_collections/holdfast/platform"
    stranger.mkdir(parents=True)
    about = {"collection_info": {"namespace": "holdfast", "name": "platform", "version": "9.9.9"}}
    (stranger / "MANIFEST.json").write_text(json.dumps(about))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    journal = Journal.begin(tmp_path / "journal", site="s", bundle="sha256:00", operator="o")
    listed = subprocess.run(
        [sys.executable, "-m", "ansible", "galaxy", "collection", "list", "--format", "json"],
        env=_environment(journal),
        capture_output=True,
        check=True,
    )
    found = json.loads(listed.stdout)
    ours = [place for place, named in found.items() if "holdfast.platform" in named]
    assert ours == [str(collections_root() / "ansible_collections")]
    assert (collections_root() / "ansible_collections/holdfast/platform/roles").is_dir()


def test_a_host_that_went_away_is_told_from_one_that_failed() -> None:
    gone = Event(time=1, event="unreachable", role="dns", task="Run it", msg="All items completed")
    failed = Event(time=1, event="failed", play="Serve", task="Run it", msg="exit code 1")
    assert _why(gone) == "dns: Run it: the host went away: All items completed"
    assert _why(failed) == "Serve: Run it: exit code 1"
