"""The servers of the registry's benchmark: the registry, nginx with and without it, the sink."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from workshop import ROOT, NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BIN = Path(sys.executable).parent
PAGE = ROOT / "docs" / "capabilities" / "model_registry.md"
ADA = "hft_ada-of-the-benchmark-01"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Running:
    """A server that runs, with all its processes."""

    url: str
    process: subprocess.Popen[bytes]
    data: Path = field(default_factory=Path)

    def pids(self) -> list[int]:
        """Return the server's processes, workers included."""
        family, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            family.append(pid)
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                waiting += [int(child) for child in children.split()]
        return family

    def processor(self) -> float:
        """Return what its processes have used of the processors so far, in seconds."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def memory(self) -> int:
        """Return what its processes hold in memory, each shared page counted once, in bytes."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found = re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total

    def stop(self) -> None:
        """End it; its processes are ours alone."""
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], port: int, folder: Path, ready: str = "/", **options: Path
) -> Iterator[Running]:
    """Run a server until the block ends; it is ready when it answers anything at `ready`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(each) for each in command], stdout=log, stderr=log, cwd=Path(__file__).parent
        )
    running = Running(f"http://127.0.0.1:{port}", process, **options)
    try:
        _wait(running, ready, folder / "log")
        yield running
    finally:
        running.stop()


def _wait(running: Running, ready: str, log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            break
        try:
            opener.open(running.url + ready, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise NotMeasuredError(f"a server did not start: {log.read_text()[-500:]}")


@contextlib.contextmanager
def registry(
    folder: Path, *options: str, models: Mapping[str, Path] | None = None
) -> Iterator[Running]:
    """Run the registry alone, as people do, with one writer and these folders as models."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"jurisdiction": "de", "classification": "internal"}
    tokens = [{"name": "benchmark", "secret": ADA}]
    document = {
        "teams": ["research", "elsewhere"],
        "users": [{"name": "ada", "teams": {"research": "admin"}, "tokens": tokens}],
        "models": [
            {
                "id": name,
                "path": str(path),
                "teams": [name.partition("/")[0]],
                "labels": labels,
            }
            for name, path in (models or {}).items()
        ],
    }
    seed = folder / "seed.yml"
    seed.write_text(yaml.safe_dump(document))
    port = free_port()
    command = [BIN / "holdfast-model-registry", "serve", "--data", folder / "data"]
    command += ["--listen", f"127.0.0.1:{port}", "--seed", seed, "--jurisdiction", "de", *options]
    with started(command, port, folder, "/healthz", data=folder / "data") as running:
        yield running


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[Running]:
    """Run the hub that throws away."""
    port = free_port()
    command = [sys.executable, Path(__file__).with_name("registry_sink.py"), str(port)]
    with started(command, port, folder) as running:
        yield running


@contextlib.contextmanager
def nginx(folder: Path, locations: str) -> Iterator[Running]:
    """Run nginx with these locations, as Debian's configuration has it otherwise."""
    binary = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if binary is None:
        raise NotMeasuredError("nginx is not installed: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"""{user} daemon off; worker_processes auto; pid {folder}/pid;
        error_log {folder}/error.log;
        events {{ worker_connections 768; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; {temporary}
            server {{ listen 127.0.0.1:{port}; {locations} }}
        }}"""
    )
    command = [binary, "-p", folder, "-c", "nginx.conf", "-e", "stderr"]
    with started(command, port, folder) as running:
        yield running


def front(upstream: Running) -> str:
    """Return the documented locations, for this registry."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    if found is None:
        raise NotMeasuredError(f"{PAGE} has no nginx locations")
    return (
        found[1]
        .replace("/var/lib/holdfast/registry/blobs/", f"{upstream.data}/blobs/")
        .replace("127.0.0.1:8101", upstream.url.removeprefix("http://"))
    )


def plain(path: Path, name: str, size: int, digest: str) -> str:
    """Return locations that serve one file as a hub would, all of it by nginx itself."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    return f"""
        location = /{name} {{
            alias {path};
            etag off;
            if_modified_since off;
            default_type application/octet-stream;
            add_header ETag '"{digest}"';
            add_header X-Repo-Commit {commit};
            add_header X-Linked-ETag '"{digest}"';
            add_header X-Linked-Size {size};
        }}
        location / {{ return 404; }}
    """
