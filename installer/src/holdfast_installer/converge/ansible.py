"""Ansible as a child process that ends when we do."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.converge.events import Event, EventReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.converge.journal import Journal

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.2
FORKS = 50
COLLECTION = "ansible_collections.holdfast.platform"
# A host that goes away is noticed within half a minute; connections are kept between tasks.
SSH_ARGUMENTS = (
    "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
)
SETTINGS = {
    "ANSIBLE_CALLBACKS_ENABLED": "holdfast.platform.holdfast_events",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_SSH_ARGS": SSH_ARGUMENTS,
    "ANSIBLE_TIMEOUT": "20",
    "ANSIBLE_NOCOLOR": "True",
    "PYTHONUNBUFFERED": "1",
}
_libc = ctypes.CDLL(None, use_errno=True)


class Outcome(BaseModel):
    """What a playbook run came to, told by its events and its exit code."""

    model_config = ConfigDict(frozen=True)

    exit_code: int
    changed: dict[str, int]
    failed_hosts: dict[str, str]


def run_playbook(  # noqa: PLR0913 - each is one decision of the caller
    name: str,
    journal: Journal,
    *,
    keep_open: int,
    check: bool,
    tags: tuple[str, ...],
    seen: Callable[[Event], None],
) -> Outcome:
    """Run playbook holdfast.platform.<name> and hand each of its events to `seen` as it happens.

    The child inherits `keep_open` (the apply lock), so that the lock outlives us for as long as
    one of its workers still works; and it ends when we are killed. An interruption is passed on to
    the caller after the child was ended.
    """
    command = [sys.executable, "-m", "ansible", "playbook", f"holdfast.platform.{name}"]
    command += ["--inventory", str(journal.inventory), "--forks", str(FORKS)]
    command += ["--check", "--diff"] if check else []
    command += ["--tags", ",".join(tags)] if tags else []
    changed: dict[str, int] = {}
    failed: dict[str, str] = {}
    reader = EventReader(journal.events)

    def drain() -> None:
        for event in reader.read():
            if event.event == "stats":
                changed[event.host] = event.changed
            elif event.event in {"failed", "unreachable"}:
                failed[event.host] = _why(event)
            seen(event)

    with journal.output.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(journal),
            pass_fds=(keep_open,) if keep_open >= 0 else (),
            # Ctrl-C is for us alone: Ansible would end its workers, but not what they run on hosts.
            start_new_session=True,
            preexec_fn=_DieWith(os.getpid()),  # noqa: PLW1509 - two system calls, nothing that locks
        )
        try:
            while child.poll() is None:
                drain()
                time.sleep(POLL_SECONDS)
        except BaseException:
            # Its workers finish the task they are at, and hold the lock until then: one that went
            # on unseen on a host would meet the next apply there.
            child.kill()
            child.wait()
            raise
    drain()
    return Outcome(exit_code=child.returncode, changed=changed, failed_hosts=failed)


def _why(event: Event) -> str:
    # Of a host that goes away amid a loop Ansible says only that all items were completed.
    gone = "the host went away: " if event.event == "unreachable" else ""
    return f"{event.role or event.play}: {event.task}: {gone}{event.msg}"


class _DieWith:
    """Run in a new child: have the kernel kill it when its parent ends, however that happens."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self) -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._parent:  # it was over before we asked
            os._exit(1)


def collections_root() -> Path:
    """Return the folder that holds `ansible_collections` with the collection of this holdfast."""
    found = importlib.util.find_spec(COLLECTION)
    if found is None or not found.submodule_search_locations:
        raise AssertionError("installed with us, by its own distribution")
    return Path(found.submodule_search_locations[0]).parents[2]


def _environment(journal: Journal) -> dict[str, str]:
    """Return the child's environment: the operator's own Ansible settings do not leak in."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    configuration = journal.folder / "ansible.cfg"
    configuration.write_text("# empty: every setting is in the environment\n")
    return {
        **kept,
        **SETTINGS,
        "ANSIBLE_CONFIG": str(configuration),
        # Nothing of the operator's own Ansible takes part: no plugin, and no copy of our collection
        # that is preferred to the one this holdfast came with.
        "ANSIBLE_HOME": str(journal.scratch),
        "ANSIBLE_COLLECTIONS_PATH": str(collections_root()),
        # sockets have short names only; a folder of the site may have a long one
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(Path.home() / ".ansible" / "cp"),
        "HOLDFAST_EVENTS": str(journal.events),
    }
