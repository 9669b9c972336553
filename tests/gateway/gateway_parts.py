"""A gateway as a process of its own, with SQLite and a seed, and what it left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import yaml
from openai import OpenAI
from scripted_upstream import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADA = "ada-has-a-secret-token-01"
EVE = "eve-has-a-secret-token-01"
OTHERS = "holdfast/for-others"
UNLABELLED = "holdfast/unlabelled"
REVISION = "0123456789abcdef0123456789abcdef01234567"
COMMAND = [sys.executable, "-m", "holdfast_gateway"]


@dataclass
class RunningGateway:
    folder: Path
    url: str
    process: subprocess.Popen[bytes]
    clients: list[OpenAI] = field(default_factory=list)
    since: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def config(self) -> Path:
        return self.folder / "gateway.yml"

    def client(self, token: str = ADA) -> OpenAI:
        client = OpenAI(base_url=f"{self.url}/v1", api_key=token, max_retries=0, timeout=30)
        self.clients.append(client)
        return client

    def post(self, body: Any, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ADA}"} | more.pop("headers", {})
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers=headers, timeout=60, **more)

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Return the usage rows once there are so many; fails when there are more or fewer."""
        return exactly(count, self._rows)

    def _rows(self) -> list[dict[str, Any]]:
        with sqlite3.connect(self.folder / "usage.db") as database:
            database.row_factory = sqlite3.Row
            found = [dict(row) for row in database.execute("SELECT * FROM usage ORDER BY time")]
        database.close()
        return [
            row
            for row in found
            if datetime.fromisoformat(row["time"]).replace(tzinfo=UTC) >= self.since
        ]

    def look_from_now(self) -> None:
        """Let `rows` and `events` return only what begins from now on."""
        time.sleep(0.002)  # events carry milliseconds
        now = datetime.now(UTC)
        self.since = now.replace(microsecond=now.microsecond // 1000 * 1000)

    def events(self, count: int) -> list[dict[str, Any]]:
        return exactly(count, self._events)

    def _events(self) -> list[dict[str, Any]]:
        lines = (self.folder / "ledger" / "entries.jsonl").read_text().splitlines()
        events = [json.loads(line)["event"] for line in lines]
        return [each for each in events if datetime.fromisoformat(each["began"]) >= self.since]

    def stop(self, patience: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)

    def log(self) -> str:
        return (self.folder / "log").read_text()


def exactly(count: int, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 10
    while len(found := read()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(found) == count, found
    return found


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(folder: Path, upstream: str, **more: Any) -> Path:
    labels = {"jurisdiction": "de", "classification": "internal"}
    seed = {
        "users": [
            {"name": "ada", "teams": ["research"], "tokens": [{"secret": ADA}]},
            {"name": "eve", "teams": ["press"], "tokens": [{"secret": EVE}]},
        ]
    }
    config = {
        "listen": f"127.0.0.1:{free_port()}",
        "database": f"sqlite:///{folder}/usage.db",
        "trust": {"database": f"sqlite:///{folder}/trust.db", "seed": f"{folder}/seed.yml"},
        "ledger": f"{folder}/ledger",
        "models": [
            {
                "id": MODEL,
                "upstream": upstream,
                "teams": ["research"],
                "labels": labels,
                "revision": REVISION,
                "tariff": {"prompt": 2, "cached": 1, "completion": 10},
            },
            {"id": OTHERS, "upstream": upstream, "teams": ["press"], "labels": labels},
            {"id": UNLABELLED, "upstream": upstream, "teams": ["research"]},
        ],
        "limits": {
            "connect_seconds": 1,
            "recover_seconds": 0.2,
            "first_byte_seconds": 20,
            "drain_seconds": 2,
        },
    }
    config["limits"] |= more.pop("limits", {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed.yml").write_text(yaml.safe_dump(seed))
    (folder / "gateway.yml").write_text(yaml.safe_dump(config | more))
    return folder / "gateway.yml"


@contextmanager
def run_gateway(folder: Path, upstream: str, **more: Any) -> Iterator[RunningGateway]:
    config = write_config(folder, upstream, **more)
    url = f"http://{yaml.safe_load(config.read_text())['listen']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config)], stdout=log, stderr=log, env=environment()
        )
    gateway = RunningGateway(folder, url, process)
    try:
        until(lambda: _healthy(gateway), 30)
        yield gateway
    finally:
        for client in gateway.clients:
            client.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def environment() -> dict[str, str]:
    """Return an environment whose proxy would swallow every request that obeyed it."""
    return os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}


def _healthy(gateway: RunningGateway) -> bool:
    assert gateway.process.poll() is None, gateway.log()
    try:
        return httpx.get(f"{gateway.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
