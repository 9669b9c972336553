"""The one long-lived process of the embedded form: starts the services and keeps them alive.

Started as `python -m holdfast_installer.local.supervisor STATE`. Reads run/services.json, writes
run/supervisor.json, holds run/supervisor.lock while it lives. SIGHUP: read the services again.
SIGTERM: stop them all, then end.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from holdfast_installer.bundle.durable import die_with_parent, write_atomically
from holdfast_installer.local.layout import Layout
from holdfast_installer.local.processes import kill_session, started_at
from holdfast_installer.local.services import Service

SERVICES = TypeAdapter(list[Service])
_TICK_SECONDS = 0.2
_SETTLED_SECONDS = 60  # alive for so long, a service is no longer punished for its past
_LONGEST_PAUSE_SECONDS = 30


class Observed(BaseModel):
    """What the supervisor knows about one service; `started` is in clock ticks since boot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int = 0
    started: int = 0
    restarts: int = 0
    last_exit: int | None = None


class Report(BaseModel):
    """What run/supervisor.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    services: tuple[Observed, ...] = ()


@dataclass
class _Kept:
    """A service with its process and its history."""

    service: Service
    child: subprocess.Popen[bytes] | None = None
    started: float = 0
    ticks: int = 0
    restarts: int = 0
    last_exit: int | None = None
    not_before: float = 0


class Supervisor:
    """Keeps the services of one state folder alive until it is told to stop."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.kept: dict[str, _Kept] = {}
        self.stopping = False
        self.reload = True

    def listen(self) -> None:
        """Take signals from here on; before anybody can learn our number."""
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        signal.signal(signal.SIGINT, lambda *_: setattr(self, "stopping", True))
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "reload", True))

    def run(self) -> None:
        """Work until SIGTERM; whatever an earlier supervisor left behind is ended first."""
        self._end_leftovers()
        while not self.stopping:
            if self.reload:
                self.reload = False
                self._read_services()
            changed = [self._keep(one) for one in self.kept.values()]
            if any(changed):
                self._write()
            time.sleep(_TICK_SECONDS)
        for one in reversed(self.kept.values()):
            self._stop(one)
        self.kept.clear()
        self._write()

    def _end_leftovers(self) -> None:
        path = self.layout.run / "supervisor.json"
        before = Report.model_validate_json(path.read_bytes()) if path.exists() else Report(pid=0)
        self._write()
        for one in before.services:
            if one.pid:
                kill_session(one.pid, one.started)

    def _read_services(self) -> None:
        wanted = {
            service.name: service
            for service in SERVICES.validate_json((self.layout.run / "services.json").read_bytes())
        }
        for name, one in list(self.kept.items()):
            if wanted.get(name) != one.service:
                self._stop(one)
                del self.kept[name]
        kept = {name: self.kept.get(name) or _Kept(service) for name, service in wanted.items()}
        self.kept = kept
        self._write()

    def _keep(self, one: _Kept) -> bool:
        """Start the service where it is down and due; return whether anything changed."""
        now = time.monotonic()
        if one.child is not None:
            code = one.child.poll()
            if code is None:
                return False
            # A vLLM whose first process was killed leaves its engine behind, port and memory too.
            kill_session(one.child.pid, one.ticks)
            settled = now - one.started > _SETTLED_SECONDS
            one.restarts = 1 if settled else one.restarts + 1
            one.last_exit, one.child = code, None
            one.not_before = now + min(2.0 ** (one.restarts - 1), _LONGEST_PAUSE_SECONDS)
            return True
        if now < one.not_before:
            return False
        one.child = self._start(one.service)
        one.started, one.ticks = now, started_at(one.child.pid)
        return True

    def _start(self, service: Service) -> subprocess.Popen[bytes]:
        with (self.layout.logs / f"{service.name}.log").open("ab") as log:
            return subprocess.Popen(
                service.command,
                cwd=self.layout.scratch / service.name,
                env=service.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread, and a single system call
            )

    def _stop(self, one: _Kept) -> None:
        if one.child is None:
            return
        one.child.terminate()
        try:
            one.child.wait(one.service.stop_seconds)
        except subprocess.TimeoutExpired:
            one.child.kill()
            one.child.wait()
        kill_session(one.child.pid, one.ticks)
        one.child = None

    def _write(self) -> None:
        services = tuple(
            Observed(
                name=name,
                pid=one.child.pid if one.child else 0,
                started=one.ticks if one.child else 0,
                restarts=one.restarts,
                last_exit=one.last_exit,
            )
            for name, one in self.kept.items()
        )
        text = Report(pid=os.getpid(), services=services).model_dump_json(indent=2) + "\n"
        write_atomically(self.layout.run / "supervisor.json", text.encode())


def main(state: Path) -> int:
    """Supervise `state` in a child that goes on alone, unless somebody does already."""
    if os.fork():
        return 0
    layout = Layout(state)
    supervisor = Supervisor(layout)
    supervisor.listen()
    with (layout.run / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
        os.set_inheritable(lock.fileno(), False)
        supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
