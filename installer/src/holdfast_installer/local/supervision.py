"""Starting, asking and stopping the supervisor, from the command's side."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.errors import HoldfastError
from holdfast_installer.local.supervisor import SERVICES, Observed, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from holdfast_installer.local.layout import Layout
    from holdfast_installer.local.services import Service

_POLL_SECONDS = 0.1
_PATIENCE = 3  # times a service may die while we wait for it, before we say so
_LOG_LINES = 15


def running(layout: Layout) -> bool:
    """Say whether a supervisor lives for this state folder."""
    try:
        with (layout.run / "supervisor.lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def report(layout: Layout) -> Report | None:
    """Return what the supervisor last wrote; None where there is none."""
    if not running(layout):
        return None
    try:
        return Report.model_validate_json((layout.run / "supervisor.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def services(layout: Layout) -> list[Service]:
    """Return the services that were last asked for."""
    try:
        return SERVICES.validate_json((layout.run / "services.json").read_bytes())
    except FileNotFoundError:
        return []


def ensure(layout: Layout, wanted: list[Service]) -> None:
    """Have exactly these services run: what changed is started anew, the rest is left alone."""
    write_atomically(layout.run / "services.json", SERVICES.dump_json(wanted, indent=2), mode=0o600)
    known = report(layout)
    if known is not None:
        os.kill(known.pid, signal.SIGHUP)
    else:
        _spawn(layout)
    _wait_until(lambda: _keeps(layout, wanted), 20, layout.logs / "supervisor.log")


def _keeps(layout: Layout, wanted: list[Service]) -> bool:
    known = report(layout)
    names = {one.name for one in known.services} if known else None
    return names == {service.name for service in wanted}


def _spawn(layout: Layout) -> None:
    # What an earlier supervisor wrote is read by the new one first: it ends what was left behind.
    with (layout.logs / "supervisor.log").open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "holdfast_installer.local.supervisor", str(layout.root)],
            cwd=layout.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            check=True,
        )


def stop(layout: Layout, seconds: float = 120) -> bool:
    """Stop the supervisor and all it keeps; return whether there was one."""
    known = report(layout)
    if known is None:
        return False
    os.kill(known.pid, signal.SIGTERM)
    _wait_until(lambda: not running(layout), seconds, layout.logs / "supervisor.log")
    return True


def answers(probe: str, *, seconds: float = 2) -> bool:
    """Say whether a probe answers 200."""
    try:
        with urllib.request.urlopen(probe, timeout=seconds) as response:  # noqa: S310 - our own http URL
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def wait_ready(layout: Layout, service: Service, seconds: float) -> None:
    """Wait until the service answers; say what its log says where it keeps dying."""
    before = _observed(layout, service.name).restarts
    deadline = time.monotonic() + seconds
    while not answers(service.probe):
        died = _observed(layout, service.name).restarts - before
        if died >= _PATIENCE or time.monotonic() > deadline:
            log = layout.logs / f"{service.name}.log"
            why = f"it ended {died} times" if died else f"no answer in {seconds:.0f} s"
            raise HoldfastError(
                f"The service {service.name} does not come up: {why}",
                where=str(log),
                cause=tail(log),
                next_command=f"holdfast down --local --state {layout.root}",
            )
        time.sleep(_POLL_SECONDS)


def _observed(layout: Layout, name: str) -> Observed:
    known = report(layout)
    found: Iterable[Observed] = known.services if known else ()
    return next((one for one in found if one.name == name), Observed(name=name))


def _wait_until(holds: Callable[[], bool], seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise HoldfastError(
                "The supervisor of the local services does not answer",
                where=str(log),
                cause=tail(log) or f"nothing happened in {seconds:.0f} s",
            )
        time.sleep(_POLL_SECONDS)


def tail(log: Path) -> str:
    """Return the last lines of a log; empty where there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LOG_LINES:])
