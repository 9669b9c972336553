"""A console as people run it, in front of a registry with something to review."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry_parts import Registry, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


ADA = "hft_ada-of-research-000001"
RUTH = "hft_ruth-who-reviews-00001"
SEED = {
    "users": [
        {"name": "ada", "teams": {"research": "write"}, "tokens": [{"secret": ADA}]},
        {"name": "ruth", "teams": ["reviewers"], "tokens": [{"secret": RUTH}]},
    ],
}
MODEL = "research/tiny"
CARD = """---
license: apache-2.0
---
# Tiny <script>alert(1)</script>

A [link](https://example.org/x), an ![image](https://example.org/track.png) and

| a | b |
|---|---|
| 1 | 2 |
"""


@dataclass(frozen=True)
class Console:
    """A console that runs, and the registry behind it."""

    url: str
    registry: Registry


@contextmanager
def run_console(folder: Path, registry: str, *options: str) -> Iterator[str]:
    port = free_port()
    command = [str(Path(sys.executable).parent / "holdfast-console"), "serve"]
    command += ["--registry", registry, "--listen", f"127.0.0.1:{port}", *options]
    url = f"http://127.0.0.1:{port}"
    with (folder / "console.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not _answers(url):
            assert process.poll() is None, (folder / "console.log").read_text()
            assert time.monotonic() < deadline, (folder / "console.log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
