"""The real smg in front of mocks of vLLM, in this process or in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx
import scripted_upstream
from gateway_parts import free_port, until
from scripted_upstream import ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SMG = Path(sys.executable).with_name("smg")
# As the site's units start it, but that replicas are asked twice as often.
_FLAGS = (
    *("--backend", "vllm", "--policy", "cache_aware", "--disable-tokenizer-autoload"),
    *("--discovery-provider", "file", "--discovery-check-interval-secs", "1"),
    *("--health-check-interval-secs", "1", "--health-check-timeout-secs", "1"),
    *("--health-failure-threshold", "2", "--health-success-threshold", "1"),
    *("--worker-startup-check-interval", "1", "--cb-timeout-duration-secs", "5"),
    *("--history-backend", "none", "--log-level", "warn", "--prometheus-host", "127.0.0.1"),
)


@dataclass
class Balancer:
    """A running smg and the list of workers it follows."""

    url: str
    workers: Path
    command: list[str]
    log: IO[bytes]
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def serve(self, replicas: Sequence[str]) -> None:
        """Give it another list of replicas, by URL."""
        listed = {"version": 1, "workers": [{"url": url} for url in replicas]}
        new = self.workers.with_suffix(".new")
        new.write_text(json.dumps(listed))
        new.replace(self.workers)

    def healthy(self) -> int:
        try:
            counted = httpx.get(f"{self.url}/readiness").json()
        except (httpx.TransportError, ValueError):
            return 0
        return int(counted.get("healthy_workers", 0))


@contextmanager
def run_smg(folder: Path, replicas: Sequence[str]) -> Iterator[Balancer]:
    """Run smg in front of replicas until the block is left; they are healthy when it begins."""
    port = free_port()
    command = [str(SMG), "launch", "--host", "127.0.0.1", "--port", str(port), *_FLAGS]
    workers = folder / "workers.json"
    command += ["--discovery-file", str(workers), "--prometheus-port", str(free_port())]
    balancer_url = f"http://127.0.0.1:{port}"
    with (folder / "smg.log").open("wb") as log, ExitStack() as stack:
        listed = {"version": 1, "workers": [{"url": url} for url in replicas]}
        workers.write_text(json.dumps(listed))
        balancer = Balancer(balancer_url, workers, command, log)
        stack.callback(balancer.kill)
        until(lambda: balancer.healthy() == len(replicas), 60)
        yield balancer


@dataclass
class ReplicaProcess:
    """A mock in a process of its own, which can be killed and frozen as a whole."""

    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, scripted_upstream.__file__, str(self.port)]
        self.process = subprocess.Popen(command)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def run_replica(port: int | None = None) -> Iterator[ReplicaProcess]:
    replica = ReplicaProcess(port or free_port())
    try:
        until(lambda: _answers(replica.url), 30)
        yield replica
    finally:
        replica.kill()


@contextmanager
def run_mocks(count: int) -> Iterator[list[ScriptedUpstream]]:
    """Run mocks in this process, whose requests can be looked at."""
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedUpstream()) for _ in range(count)]


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
