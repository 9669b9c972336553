"""What stands between a client and a replica, each part started alone and all of them in a row."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from gateway_load import TOKEN, UnexpectedAnswerError, ask
from gateway_upstream import MODEL
from peer import program
from servers import BIN, Running, free_port, started
from workshop import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Way:
    """One way to a replica: where it begins, and the processes that carry it."""

    name: str
    url: str
    servers: tuple[Running, ...] = ()

    def processor(self) -> float:
        """Return what its processes have used so far, in seconds."""
        return sum(server.processor() for server in self.servers)

    def memory(self) -> int:
        """Return what its processes hold, in bytes."""
        return sum(server.memory() for server in self.servers)


@contextlib.contextmanager
def replica(
    folder: Path, *, service_seconds: float, tokens: int, chunk_seconds: float = 0
) -> Iterator[Way]:
    """Run the mock of a replica."""
    port = free_port()
    script = Path(__file__).with_name("gateway_upstream.py")
    numbers = (port, service_seconds, tokens, chunk_seconds)
    with started([sys.executable, script, *map(str, numbers)], port, folder) as running:
        yield Way("direct", running.url, (running,))


@contextlib.contextmanager
def haproxy(folder: Path, upstream: str) -> Iterator[Way]:
    """Run HAProxy as the edge is, without TLS, which would cost every way the same."""
    binary = shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    if binary is None:
        raise NotMeasuredError("haproxy is not installed: apt-get install haproxy")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        f"""global
    maxconn 4000
defaults
    mode http
    option forwardfor
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout http-keep-alive 60s
frontend edge
    bind 127.0.0.1:{port}
    http-request set-header X-Forwarded-Proto https
    http-response set-header Strict-Transport-Security "max-age=31536000; includeSubDomains"
    default_backend api
backend api
    server gateway {upstream.removeprefix("http://")}
"""
    )
    with started([binary, "-db", "-f", folder / "haproxy.cfg"], port, folder) as running:
        yield Way("HAProxy", running.url, (running,))


@contextlib.contextmanager
def smg(folder: Path, upstream: str) -> Iterator[Way]:
    """Run smg with what its unit on a site is started with, TLS left out."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = folder / "workers.json"
    workers.write_text(json.dumps({"version": 1, "workers": [{"url": upstream}]}))
    port = free_port()
    command = [BIN / "smg", "launch", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    command += ["--backend", "vllm", "--policy", "cache_aware", "--disable-tokenizer-autoload"]
    command += ["--discovery-provider", "file", "--discovery-file", workers]
    command += ["--worker-startup-check-interval", "1", "--history-backend", "none"]
    with started([*command, "--log-level", "warn"], port, folder, "/readiness") as running:
        _until_it_serves(running.url)
        yield Way("smg", running.url, (running,))


@contextlib.contextmanager
def gateway(folder: Path, upstream: str, slots: int | None = None) -> Iterator[Way]:
    """Run the gateway alone, as people do, with a budget that everything is counted against.

    `slots` are the sequences that the replicas work on at once, where that matters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"jurisdiction": "de", "classification": "internal"}
    tokens = [{"name": "benchmark", "secret": TOKEN}]
    seed = {"users": [{"name": "ada", "teams": ["research"], "tokens": tokens}]}
    (folder / "seed.yml").write_text(yaml.safe_dump(seed))
    port = free_port()
    config = {
        "listen": f"127.0.0.1:{port}",
        "database": f"sqlite:///{folder}/usage.db",
        "trust": {"database": f"sqlite:///{folder}/trust.db", "seed": f"{folder}/seed.yml"},
        "ledger": f"{folder}/ledger",
        "models": [
            {"id": MODEL, "upstream": upstream, "teams": ["research"], "labels": labels}
            | ({} if slots is None else {"slots": slots})
        ],
        "budgets": [{"team": "research", "tokens": 1_000_000_000_000, "per": "month"}],
    }
    (folder / "gateway.yml").write_text(yaml.safe_dump(config))
    command = [BIN / "holdfast-gateway", "serve", "--config", folder / "gateway.yml"]
    with started(command, port, folder, "/healthz") as running:
        yield Way("gateway", running.url, (running,))


@contextlib.contextmanager
def litellm(folder: Path, upstream: str) -> Iterator[Way]:
    """Run LiteLLM's proxy with one key and no database: budgets and records would need one."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    parameters = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
        "general_settings": {"master_key": TOKEN},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "litellm.yml").write_text(yaml.safe_dump(config))
    command = [program("litellm", "litellm"), "--config", folder / "litellm.yml"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    with started(command, port, folder, "/health/liveliness") as running:
        yield Way("LiteLLM", running.url, (running,))


@contextlib.contextmanager
def chain(folder: Path, upstream: str) -> Iterator[Way]:
    """Run all that stands between a client and a replica on a site."""
    with (
        smg(folder / "smg", upstream) as last,
        gateway(folder / "gateway", last.url) as middle,
        haproxy(folder / "haproxy", middle.url) as first,
    ):
        yield Way("chain", first.url, first.servers + middle.servers + last.servers)


def _until_it_serves(url: str) -> None:
    """Wait until a balancer has found its worker; bounded."""
    for _ in range(120):
        try:
            ask(url, stream=False, requests=1)
        except (UnexpectedAnswerError, OSError, EOFError):
            time.sleep(0.25)
            continue
        return
    raise NotMeasuredError(f"the balancer at {url} serves nothing")
