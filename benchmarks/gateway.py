"""What the gateway adds: latency, processor time, memory, open streams, beside its neighbours.

`.venv/bin/python benchmarks/gateway.py [--json] [--only MEASUREMENT]...`, on loopback, without
root. How to read it is in README.md beside this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click
from figures import Figure
from gateway_chain import Way, chain, gateway, haproxy, litellm, replica, smg
from gateway_load import Asked, ask, hold_open, together
from running import take, tell
from workshop import WORK, NotMeasuredError, load, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A tiny model's first token: added latency is judged against something that takes any time at all.
SERVICE_SECONDS = 0.004
TOKENS = 64
ROUNDS, REQUESTS = 5, 200
CONNECTIONS = 8
SUSTAINED = 50_000
STREAMS = 1000
MB = 1_000_000


@contextlib.contextmanager
def _ways(folder: Path) -> Iterator[list[Way]]:
    """Start every way; LiteLLM is left out where it cannot be had, and its row says why."""
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(
            replica(folder / "replica", service_seconds=SERVICE_SECONDS, tokens=TOKENS)
        )
        ways = [direct]
        for name, start in (("haproxy", haproxy), ("smg", smg), ("gateway", gateway)):
            ways.append(stack.enter_context(start(folder / name, direct.url)))
        ways.append(stack.enter_context(chain(folder / "chain", direct.url)))
        try:
            ways.append(stack.enter_context(litellm(folder / "litellm", direct.url)))
        except NotMeasuredError as problem:
            say(f"  without LiteLLM: {problem}", markup=False)
        yield ways


def measure_latency(folder: Path) -> list[Figure]:
    """One request after another, whole answers and streams, every way by turns."""
    figures = []
    with _ways(folder) as ways:
        for stream in (False, True):
            ask_way = partial(ask, stream=stream)
            for way in ways:
                ask_way(way.url, requests=50)
            taken: dict[str, list[Asked]] = {way.name: [] for way in ways}
            for _ in range(ROUNDS):
                for way in ways:
                    taken[way.name].append(ask_way(way.url, requests=REQUESTS))
            kind = "stream" if stream else "whole"
            say(f"  {load()}; {kind}")
            direct = together(*taken["direct"])
            for way in ways[1:]:
                figures += _added(kind, way.name, together(*taken[way.name]), direct)
    return figures


def _added(kind: str, name: str, ours: Asked, direct: Asked) -> list[Figure]:
    goal = 1.35 if name == "chain" else None
    told = f"{ours} to {direct} of the replica itself"
    word = name.lower()
    return [
        Figure(f"{word}-{kind}-p50", ours.p50 / direct.p50, "ratio", told, goal),
        Figure(f"{word}-{kind}-p50-added", (ours.p50 - direct.p50) * 1000, "ms", told),
        Figure(f"{word}-{kind}-p99-added", (ours.p99 - direct.p99) * 1000, "ms", told),
    ]


def measure_processor(folder: Path) -> list[Figure]:
    """Processor time a request and a chunk, over several connections, every way by turns."""
    figures = []
    with _ways(folder) as ways:
        for way in ways[1:]:
            whole, per_request = _processor(way, stream=False)
            streams, per_stream = _processor(way, stream=True)
            goal = 0.45 if way.name == "chain" else None
            told = f"{CONNECTIONS} connections, {len(whole.seconds) / whole.wall:.0f}/s"
            chunk = (per_stream - per_request) / TOKENS
            word = way.name.lower()
            figures += [
                Figure(f"{word}-processor", per_request * 1000, "ms/request", told, goal),
                Figure(
                    f"{word}-chunk-processor",
                    chunk * 1e6,
                    "us/chunk",
                    f"streams of {TOKENS}, {len(streams.seconds) / streams.wall:.0f}/s, the "
                    "request's own part taken off",
                ),
            ]
    return figures


def _processor(way: Way, *, stream: bool) -> tuple[Asked, float]:
    requests = ROUNDS * REQUESTS
    ask(way.url, stream=stream, requests=100, connections=CONNECTIONS)
    before = way.processor()
    asked = ask(way.url, stream=stream, requests=requests, connections=CONNECTIONS)
    return asked, (way.processor() - before) / len(asked.seconds)


def measure_memory(folder: Path) -> list[Figure]:
    """Memory of a gateway over many requests."""
    with (
        replica(folder / "replica", service_seconds=0, tokens=TOKENS) as direct,
        gateway(folder / "gateway", direct.url) as way,
    ):
        held = []
        for _ in range(5):
            asked = partial(ask, way.url, connections=CONNECTIONS)
            asked(stream=False, requests=SUSTAINED // 10)
            asked(stream=True, requests=SUSTAINED // 10)
            held.append(way.memory())
            say(f"  {load()}; {held[-1] / MB:.0f} MB")
    told = (
        f"after {SUSTAINED // 5}: {held[0] / MB:.0f} MB, after {SUSTAINED}: {held[-1] / MB:.0f} MB"
    )
    return [Figure("memory-growth", held[-1] / held[0], "ratio", told, 1.1)]


def measure_streams(folder: Path) -> list[Figure]:
    """Many streams open at once on one gateway."""
    with (
        replica(folder / "replica", service_seconds=0.004, tokens=40, chunk_seconds=0.5) as direct,
        gateway(folder / "gateway", direct.url) as way,
    ):
        before = way.memory()
        whole, _ = asyncio.run(hold_open(way.url, STREAMS))
        held = way.memory() - before
    told = f"of {STREAMS} open at once, two tokens a second; {held / STREAMS / 1000:.0f} kB each"
    return [replace(Figure("open-streams", whole, "streams", told), at_least=STREAMS)]


MEASUREMENTS: dict[str, Callable[[Path], list[Figure]]] = {
    "latency": measure_latency,
    "processor": measure_processor,
    "memory": measure_memory,
    "streams": measure_streams,
}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(MEASUREMENTS)), help="May be repeated."
)
def main(*, as_data: bool, only: tuple[str, ...]) -> None:
    """Measure and print; exit 1 when something could not be measured, whatever the goals say."""
    folder = WORK / "gateway"
    shutil.rmtree(folder, ignore_errors=True)
    taken = {name: partial(measure, folder / name) for name, measure in MEASUREMENTS.items()}
    figures, whole = take(taken, only)
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
