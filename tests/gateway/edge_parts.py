"""HAProxy as the edge role writes it, before gateways that a small supervisor restarts.

The supervisor does what systemd does for holdfast-gateway@.service: Type=notify, KillMode=process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import jinja2
import yaml
from gateway_parts import COMMAND, environment, free_port, until, write_config

from required import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAVE = 1.5  # seconds; on a site 4, see edge_config
ROLE = Path(__file__).parents[2] / "playbooks/ansible_collections/holdfast/platform/roles/edge"


@dataclass
class Supervised:
    """One gateway under a supervisor that leaves its children alone."""

    config: Path
    url: str
    process: subprocess.Popen[bytes] | None = None
    workers: list[int] = field(default_factory=list)

    def start(self, seconds: float = 30) -> None:
        folder = self.config.parent
        path = folder / "notify"
        path.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            (folder / "log").open("ab") as log,
        ):
            notify.bind(str(path))
            notify.settimeout(seconds)
            self.process = subprocess.Popen(
                [*COMMAND, "serve", "--hand-over", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=environment() | {"NOTIFY_SOCKET": str(path)},
            )
            try:
                assert notify.recv(64) == b"READY=1"
            except TimeoutError:
                raise AssertionError((folder / "log").read_text()) from None
        self.workers.append(self.worker)

    @property
    def worker(self) -> int:
        """Return the process that holds the requests."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def stop(self, seconds: float = 30) -> float:
        """Ask the main process to end; return how long that took. Its worker may live on."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(seconds) == 0
        return time.monotonic() - began

    def kill(self) -> None:
        """End everything at once, with -9."""
        assert self.process is not None
        worker = self.worker
        self.process.kill()
        os.kill(worker, signal.SIGKILL)
        self.process.wait()

    def finish(self) -> None:
        """Leave no process behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for worker in self.workers:
            if alive(worker):
                os.kill(worker, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Say whether it is still one of our gateways."""
    try:
        return b"holdfast_gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass
class Edge:
    """A running HAProxy; `server(n)` is what it thinks of a gateway: UP, DOWN, ..."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.folder / "admin.sock"))
            admin.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def server(self, number: int) -> str:
        for line in self.ask("show stat").splitlines():
            fields = line.split(",")
            if fields[:2] == ["api", f"gateway{number}"]:
                return fields[17]
        raise AssertionError(f"HAProxy knows no gateway{number}")

    def reload(self) -> None:
        """Have the master start new workers, which take the sockets of the old ones."""
        before = self.pids()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: self.pids() - before, 10)

    def pids(self) -> set[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}


def edge_config(folder: Path, port: int, gateways: list[int]) -> str:
    """Render the role's template, on loopback, without TLS and as whoever runs the tests."""
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    names = {"edge_hub": "hub.test", "edge_api": "127.0.0.1", "edge_console": "console.test"}
    template = jinja2.Environment(
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    ).from_string((ROLE / "templates/haproxy.cfg.j2").read_text())
    text = template.render(
        **(defaults | names | {"edge_tls_min_version": "1.3", "edge_api_ports": gateways})
    )
    text = re.sub(r"(?m)^    bind \[::\].*\n", "", text)
    text, bound = re.subn(r"(?m)^    bind :443 .*$", f"    bind 127.0.0.1:{port}", text)
    text, stats = re.subn("/run/haproxy/admin.sock", f"{folder}/admin.sock", text)
    # Times to a third, for the tests' sake: what matters is how they stand to leave_seconds.
    text, often = re.subn("inter 500ms", "inter 160ms", text)
    text, patience = re.subn("timeout check 2s", "timeout check 1s", text)
    assert (bound, stats, often, patience) == (1, 1, 1, 1)
    return re.sub(r"(?m)^    (user|group|daemon|log /dev/log).*\n", "", text)


@contextmanager
def run_edge(folder: Path, gateways: list[int], ready: int = 401) -> Iterator[Edge]:
    """Run HAProxy as its unit does, master and worker; `ready` is what a stranger is told then."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or lacking(
        "HAProxy is not installed: apt-get install haproxy"
    )
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "haproxy.cfg").write_text(edge_config(folder, port, gateways))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-W", "-f", str(folder / "haproxy.cfg")], stdout=log, stderr=log
        )
    edge = Edge(f"http://127.0.0.1:{port}", folder, process)
    try:
        until(lambda: _tells(edge, ready), 20)
        yield edge
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tells(edge: Edge, status: int) -> bool:
    assert edge.process.poll() is None, (edge.folder / "log").read_text()
    try:
        return httpx.get(f"{edge.url}/v1/models", trust_env=False).status_code == status
    except httpx.TransportError:
        return False


@contextmanager
def run_gateways(folder: Path, upstream: str, count: int = 2) -> Iterator[list[Supervised]]:
    """Run several gateways over one database, each with a ledger of its own."""
    limits = {"leave_seconds": LEAVE, "drain_seconds": 60}
    gateways = []
    shared = folder / "shared"
    for number in range(1, count + 1):
        own = folder / str(number)
        config = write_config(
            own,
            upstream,
            limits=limits,
            instance=f"gateway-{number}",
            database=f"sqlite:///{shared}/usage.db",
            trust={"database": f"sqlite:///{shared}/trust.db", "seed": f"{own}/seed.yml"},
        )
        url = f"http://{yaml.safe_load(config.read_text())['listen']}"
        gateways.append(Supervised(config, url))
    shared.mkdir()
    try:
        for gateway in gateways:
            gateway.start()
        yield gateways
    finally:
        for gateway in gateways:
            gateway.finish()
