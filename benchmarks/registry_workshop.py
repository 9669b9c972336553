"""What the registry's measurements share: a work folder, files of random content, the client."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import struct
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from figures import Figure, Times
from registry_servers import ADA
from servers import BIN, Running
from workshop import WORK, NotMeasuredError, load, machine_seconds, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

GIB = 1 << 30
QUIET = 0.15  # share of the machine that others may use where a goal is judged
_PIECE = 1 << 24


class Workshop:
    """A folder that is emptied at the end, and what is needed to measure in it."""

    def __init__(self) -> None:
        self.folder = WORK / "registry"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.log = WORK / "registry.txt"
        self.log.write_text("")
        self._numbers = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        """Return a path in the work folder that nothing has used."""
        self._numbers += 1
        return self.folder / f"{self._numbers}-{name}"

    def client(self, endpoint: str, *arguments: str | Path, **environment: str) -> float:
        """Run the stock `hf` with a home of its own; return its seconds, start and end included."""
        home = self.fresh("home")
        home.mkdir()
        began = time.monotonic()
        done = subprocess.run(
            [str(BIN / "hf"), *map(str, arguments)],
            env=client_environment(endpoint, home) | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
        shutil.rmtree(home, ignore_errors=True)
        self.told(f"hf {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}[{took:.2f} s]")
        if done.returncode:
            raise NotMeasuredError(f"hf {arguments[0]} failed: {done.stderr.strip()[-400:]}")
        return took

    def told(self, text: str) -> None:
        """Note what was run and said."""
        with self.log.open("a") as log:
            log.write(f"$ {text}\n")


def client_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Return the environment in which a client knows this hub and nothing else."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": ADA,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }


def write_weights(path: Path, size: int) -> str:
    """Write a valid safetensors file of random bytes, about so large; return its SHA-256."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        piece, left = struct.pack("<Q", len(header)) + header, size
        while piece:
            file.write(piece)
            digest.update(piece)
            piece = os.urandom(min(left, _PIECE))
            left -= len(piece)
        file.flush()
        os.fsync(file.fileno())  # or its writing falls into what is measured next
    return digest.hexdigest()


class Watch:
    """Counts what the machine does between two moments, and how much of it is not ours."""

    def __init__(self, *servers: Running) -> None:
        self.servers = servers
        self._ours, self._machine = self._used(), machine_seconds()

    def others(self) -> float:
        """Return the share of the machine that others used, 0 to 1."""
        ours = self._used() - self._ours
        busy, there = (
            now - then for now, then in zip(machine_seconds(), self._machine, strict=True)
        )
        return max(0.0, busy - ours) / there if there else 0.0

    def judged(self, *figures: Figure) -> list[Figure]:
        """Return the figures, without a verdict where others used much of the machine."""
        others = self.others()
        told = f"; others used {others:.0%} of the machine meanwhile"
        return [
            replace(figure, baseline=figure.baseline + told, conclusive=others <= QUIET)
            for figure in figures
        ]

    def _used(self) -> float:
        total = sum(server.processor() for server in self.servers)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            total += usage.ru_utime + usage.ru_stime
        return total


def by_turns(times: int, *each: Callable[[], float]) -> list[Times]:
    """Take each in turn, so often: what a neighbour does falls on all of them."""
    readings: list[list[float]] = [[] for _ in each]
    for _ in range(times):
        for reading, measure in zip(readings, each, strict=True):
            reading.append(measure())
    say(f"  {load()}; {' against '.join(str(Times(tuple(reading))) for reading in readings)}")
    return [Times(tuple(reading)) for reading in readings]


def speed(name: str, ours: Times, theirs: Times, baseline: str, at_least: float) -> Figure:
    """Return how fast ours is as a share of the baseline's speed, medians of the same run."""
    told = f"{ours} to {theirs} of {baseline}"
    return Figure(name, theirs.median / ours.median, "ratio", told, at_least=at_least)


def per_second(size: int, times: Sequence[Times]) -> str:
    """Tell speeds for a size in bytes, for people."""
    return ", ".join(f"{size / each.median / 1e9:.2f} GB/s" for each in times)
