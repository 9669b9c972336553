"""How soon the kill switch is felt: streams at one gateway, and the command that ends them.

`.venv/bin/python benchmarks/kill_switch.py [--json]`, on loopback, without root. How to read it is
in README.md beside this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import click
import httpx
from figures import Figure, Times
from gateway_chain import gateway, replica
from gateway_load import TOKEN
from gateway_upstream import MODEL
from running import take, tell
from servers import BIN
from workshop import WORK, NotMeasuredError

if TYPE_CHECKING:
    from pathlib import Path

STREAMS = 16
ROUNDS = 7
GOAL = 1.0
ENDLESS_TOKENS, CHUNK_SECONDS = 6000, 0.05
START_SECONDS = 30


class Stream:
    """One stream that is read until it ends."""

    def __init__(self, url: str) -> None:
        self.begun = threading.Event()
        self.ended = 0.0
        self.last = b""
        self._url = url
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{self._url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
            for block in answer.iter_raw():
                self.last = block
                self.begun.set()
        self.ended = time.monotonic()

    def join(self) -> None:
        """Wait for its end, which must be the one that was ordered."""
        self._thread.join(60)
        if not self.ended or b'"code": "stopped"' not in self.last:
            raise NotMeasuredError(f"a stream was not stopped: {self.last[-200:]!r}")


def measure(folder: Path) -> list[Figure]:
    """Stop a user with streams under way, again and again."""
    shutil.rmtree(folder, ignore_errors=True)
    database = f"sqlite:///{folder}/gateway/trust.db"
    whole, after, alone = [], [], []

    def command(*words: str) -> float:
        began = time.monotonic()
        subprocess.run(
            [BIN / "holdfast-trust", *words],
            env=os.environ
            | {
                "HOLDFAST_TRUST_DATABASE": database,
                "HOLDFAST_TRUST_LEDGER": str(folder / "identity"),
            },
            check=True,
            capture_output=True,
        )
        return time.monotonic() - began

    with (
        replica(
            folder / "replica",
            service_seconds=0,
            tokens=ENDLESS_TOKENS,
            chunk_seconds=CHUNK_SECONDS,
        ) as behind,
        gateway(folder / "gateway", behind.url) as way,
    ):
        for _ in range(ROUNDS):
            streams = [Stream(way.url) for _ in range(STREAMS)]
            if not all(stream.begun.wait(START_SECONDS) for stream in streams):
                raise NotMeasuredError("the streams did not begin")
            began = time.monotonic()
            took = command("kill", "user", "ada", "--reason", "benchmark")
            for stream in streams:
                stream.join()
            ended = max(stream.ended for stream in streams)
            whole.append(ended - began)
            after.append(max(0.0, ended - began - took))
            alone.append(command("kill", "list"))
            command("kill", "lift", "user", "ada")
            time.sleep(1)  # the gateway has seen it, and remembers no refusal
    told = f"{Times(tuple(whole))}; {STREAMS} streams, the last of them; the command "
    told += f"`kill list` alone {Times(tuple(alone))}"
    return [
        Figure("kill-to-end", Times(tuple(whole)).median, "s", told, GOAL),
        Figure(
            "command-to-end",
            Times(tuple(after)).median,
            "s",
            f"{Times(tuple(after))}; from the command's end, 0 where the streams ended before it",
        ),
    ]


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
def main(*, as_data: bool) -> None:
    """Measure and print; exit 1 when something was not measured."""
    figures, whole = take({"kill": lambda: measure(WORK / "kill")}, ())
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
