"""One apply at a time: a lock on the control host that dies with whoever holds it.

The lock is an flock held by a small shell on the control host, whose life hangs on a pipe: when the
operator's process and its Ansible child are gone, killed or not, the pipe closes and so does the
lock. A lock file left behind by a crash therefore never has to be removed by hand.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import shlex
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from holdfast_installer.console import console
from holdfast_installer.errors import Finding, HoldfastError, Refused
from holdfast_installer.remote import as_root, ssh_arguments

if TYPE_CHECKING:
    from types import TracebackType

    from holdfast_installer.site import Host, Site

LOCK = "apply-lock"
HELD = "held"
HELD_BY_ANOTHER = 75
# A task may wait ten minutes for a model to load; what a killed apply left running may do so too.
ORPHAN_GRACE_SECONDS = 900

RELEASE_SECONDS = 30

_HOLD = """
umask 077
exec 9>>/run/holdfast-apply.lock
if ! flock -n 9; then cat /run/holdfast-apply.holder; exit 75; fi
printf %s {holder} >/run/holdfast-apply.holder
echo held
cat >/dev/null
"""


class ApplyLock:
    """Hold the site's apply lock as a context manager; raises Refused naming the holder."""

    def __init__(self, site: Site, control: Host) -> None:
        self._site = site
        self._control = control
        self._process: subprocess.Popen[str] | None = None
        self._write_end = -1

    @property
    def descriptor(self) -> int:
        """The pipe end that keeps the lock; a child that inherits it keeps it too."""
        return self._write_end

    def __enter__(self) -> Self:
        deadline = time.monotonic() + ORPHAN_GRACE_SECONDS
        waiting = False
        while (holder := self._try()) is not None:
            if not _is_our_orphan(holder) or time.monotonic() > deadline:
                raise Refused(
                    "Another apply is running on this site; nothing was touched.",
                    (
                        Finding(
                            name=LOCK,
                            verdict="fail",
                            host=self._control.name,
                            detail=(
                                f"held by {holder.get('operator', 'somebody')} on "
                                f"{holder.get('machine', 'an unknown machine')} "
                                f"(process {holder.get('process', '?')}) since "
                                f"{holder.get('since', 'an unknown time')}"
                            ),
                            fix="wait until it ends, or end it where it runs",
                        ),
                    ),
                )
            if not waiting:
                console.print("An apply from here was killed; waiting until its last task ends.")
            waiting = True
            time.sleep(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._write_end < 0 or self._process is None:
            return
        os.close(self._write_end)
        self._write_end = -1
        try:
            self._process.wait(timeout=RELEASE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # the work is done, whatever still has the pipe open

    def await_children(self) -> None:
        """Give up our share, and wait until the children that inherited theirs have ended too.

        Ctrl-C ends the waiting, not the children: they keep the lock for as long as they live.
        """
        if self._write_end < 0 or self._process is None:
            return
        os.close(self._write_end)
        self._write_end = -1
        with contextlib.suppress(KeyboardInterrupt):
            self._process.wait()

    def _try(self) -> dict[str, str] | None:
        """Take the lock and return None, or return who holds it."""
        holder = json.dumps(
            {
                "operator": getpass.getuser(),
                "machine": platform.node(),
                "boot": boot_id(),
                "process": str(os.getpid()),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        read_end, write_end = os.pipe()
        script = _HOLD.format(holder=shlex.quote(holder))
        process = subprocess.Popen(
            [*ssh_arguments(self._site, self._control), as_root(self._site, ["sh", "-c", script])],
            stdin=read_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for us alone: the lock has to outlive an Ansible that still cleans up.
            start_new_session=True,
        )
        os.close(read_end)
        if process.stdout is None or process.stderr is None:
            raise AssertionError("both streams were asked for")
        answer = process.stdout.readline()
        if answer.strip() == HELD:
            self._process, self._write_end = process, write_end
            return None
        os.close(write_end)
        rest = process.stdout.read()
        complaint = process.stderr.read().strip()
        if process.wait() != HELD_BY_ANOTHER:
            raise HoldfastError(
                "The apply lock cannot be taken.",
                where=f"{self._control.name} ({self._control.address})",
                cause=complaint or "the host closed the connection",
                next_command="holdfast survey --site SITE.yml",
            )
        try:
            found = json.loads(answer + rest)
        except json.JSONDecodeError:
            return {}
        return {str(key): str(value) for key, value in found.items()}


def boot_id() -> str:
    """Return what tells this boot of this machine from any other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _is_our_orphan(holder: dict[str, str]) -> bool:
    """Tell whether the holder was a process of this machine that is gone by now."""
    # A process number means something within one boot; host names are often alike.
    if holder.get("boot") != boot_id() or not holder.get("process", "").isdigit():
        return False
    try:
        stat = Path("/proc", holder["process"], "stat").read_text()
    except FileNotFoundError:
        return True
    # A zombie has ended too; whoever started it has yet to notice.
    return stat.rpartition(")")[2].split()[0] == "Z"
