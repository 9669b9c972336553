"""Short questions while long answers run: plain vLLM, plain smg, and our chain before it.

`.venv/bin/python benchmarks/lanes.py --vllm PYTHON [--json]`, on loopback, without root. How to
read it is in README.md beside this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import click
from figures import Figure, Times
from gateway_chain import Way, gateway, smg
from gateway_load import TOKEN
from gateway_upstream import MODEL
from running import take, tell
from servers import Running, free_port
from workshop import ROOT, STARTER_FOLDER, WORK, NotMeasuredError, load, machine_seconds, say

from holdfast_installer.profiles import hardware_profile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

SEATS = 8
LONG_ONES = 8
LONG_TOKENS = 480
ROUNDS = 3
# A question in the way of eight long answers waits for seconds: fewer of those tell as much.
IDLE_QUESTIONS, BUSY_QUESTIONS = 30, {"vLLM": 4, "smg": 4, "chain": 40}
GOAL = 1.5
START_SECONDS = 300
OTHERS = 0.15


@contextlib.contextmanager
def vllm(python: Path, folder: Path, options: Sequence[str]) -> Iterator[Way]:
    """Run a replica of the starter model with the profile's options and eight seats."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    profile = hardware_profile("cpu-low-power").vllm
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(STARTER_FOLDER), "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", str(SEATS)]
    command += ["--max-model-len", "512", "--scheduling-policy", "priority"]
    given = {"max_num_seqs", "max_model_len", "scheduling_policy"}
    for name, value in profile.args.items():
        if name not in given:
            flag = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
            command += [flag] if isinstance(value, bool) else [flag, str(value)]
    caches = {
        "HOME": folder,
        "XDG_CACHE_HOME": folder / "cache",
        "VLLM_CACHE_ROOT": folder / "vllm",
        "VLLM_CONFIG_ROOT": folder / "config",
        "TORCHINDUCTOR_CACHE_DIR": folder / "inductor",
    }
    environment = {
        "PATH": os.environ["PATH"],
        **profile.env,
        "TORCHDYNAMO_DISABLE": "1",
        # Two threads that wait for one another at every step would measure the neighbours.
        "OMP_NUM_THREADS": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        **{name: str(path) for name, path in caches.items()},
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=log, stderr=log, env=environment, start_new_session=True
        )
    running = Running(f"http://127.0.0.1:{port}", process)
    try:
        if not asyncio.run(_ready(running)):
            said = (folder / "log").read_text()[-800:]
            raise NotMeasuredError(f"vLLM did not start: {said}")
        yield Way("vLLM", running.url, (running,))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _ready(running: Running) -> bool:
    async with aiohttp.ClientSession() as session:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and running.process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.get(running.url + "/health") as answer:
                    if answer.status == 200:
                        return True
            await asyncio.sleep(0.25)
    return False


async def _ask(session: aiohttp.ClientSession, way: Way, **asked: object) -> float:
    """Ask one question, read the whole answer, return the seconds to its first token."""
    body = {"model": MODEL, "stream": True, "temperature": 0} | asked
    began = time.perf_counter()
    first = None
    async with session.post(f"{way.url}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            raise NotMeasuredError(f"{way.name}: {answer.status} {(await answer.text())[:300]}")
        async for line in answer.content:
            # The first event holds the role alone: vLLM sends it with the first token.
            if first is None and line.startswith(b"data: {") and b'"content":"' in line:
                first = time.perf_counter() - began
    if first is None:
        raise NotMeasuredError(f"{way.name}: an answer without a token")
    return first


async def _short(session: aiohttp.ClientSession, way: Way, questions: int) -> list[float]:
    taken = []
    for _ in range(questions):
        said = [{"role": "user", "content": "What is Holdfast?"}]
        taken.append(await _ask(session, way, messages=said, max_tokens=2))
        await asyncio.sleep(0.02)
    return taken


@contextlib.asynccontextmanager
async def _busy(session: aiohttp.ClientSession, way: Way, clients: int) -> AsyncIterator[None]:
    """Keep so many clients busy with answers as long as the model's context."""

    async def one(number: int) -> None:
        turn = 0
        while True:
            turn += 1
            said = [{"role": "user", "content": f"Tell me all of {number} and {turn}."}]
            await _ask(session, way, messages=said, max_tokens=LONG_TOKENS, ignore_eos=True)

    tasks = [asyncio.ensure_future(one(number)) for number in range(clients)]
    try:
        await asyncio.sleep(1)
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _rounds(ways: Sequence[Way]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Take each way idle and busy, by turns; return the seconds to the first token."""
    idle: dict[str, list[float]] = {way.name: [] for way in ways}
    busy: dict[str, list[float]] = {way.name: [] for way in ways}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector, trust_env=False
    ) as session:
        for way in ways:
            await _short(session, way, 10)
        for number in range(ROUNDS):
            for way in ways:
                idle[way.name] += await _short(session, way, IDLE_QUESTIONS)
                async with _busy(session, way, LONG_ONES):
                    busy[way.name] += await _short(session, way, BUSY_QUESTIONS[way.name])
            told = "; ".join(
                f"{way.name} {_spread(Times(tuple(idle[way.name])))} idle, "
                f"{_spread(Times(tuple(busy[way.name])))} busy"
                for way in ways
            )
            say(f"  {load()}; after round {number + 1} of {ROUNDS}: {told}")
    return idle, busy


def measure_lanes(python: Path, folder: Path, options: Sequence[str]) -> list[Figure]:
    """Time short questions, idle and with eight long answers on eight seats, three ways."""
    with (
        vllm(python, folder / "vllm", options) as direct,
        smg(folder / "smg", direct.url) as balancer,
        gateway(folder / "gateway", balancer.url, slots=SEATS) as front,
    ):
        ways = (direct, balancer, Way("chain", front.url, front.servers))
        mine = partial(_used, (direct, balancer, front))
        before, machine = mine(), machine_seconds()
        idle, busy = asyncio.run(_rounds(ways))
        used = mine() - before
        spent, there = (now - then for now, then in zip(machine_seconds(), machine, strict=True))
    others = max(0.0, spent - used) / there
    figures = []
    for way in ways:
        name = way.name.lower()
        at_rest, at_work = Times(tuple(idle[way.name])), Times(tuple(busy[way.name]))
        figures += [
            _milliseconds(f"short-idle-{name}", at_rest, "nothing else is asked"),
            _milliseconds(f"short-busy-{name}", at_work, f"{LONG_ONES} clients ask for long ones"),
            _ratio(f"short-{name}", at_work, at_rest, f"{way.name} idle", others, way.name),
        ]
    bare = Times(tuple(idle["vLLM"]))
    work = Times(tuple(busy["chain"]))
    return [*figures, _ratio("short-chain-to-bare", work, bare, "vLLM idle, asked directly", 1, "")]


def _used(ways: Sequence[Way]) -> float:
    ours = time.process_time()
    return ours + sum(way.processor() for way in ways)


def _milliseconds(name: str, times: Times, told: str) -> Figure:
    return Figure(name, times.median * 1000, "ms", f"{_spread(times)}; {told}")


def _ratio(  # noqa: PLR0913, PLR0917  # two readings, their names, and whether they can be judged
    name: str, busy: Times, idle: Times, baseline: str, others: float, way: str
) -> Figure:
    told = f"{_spread(busy)} to {_spread(idle)} of {baseline}"
    goal = GOAL if way == "chain" else None
    if goal is not None:
        told += f"; others used {others:.0%} of the machine"
    return Figure(name, busy.median / idle.median, "ratio", told, goal, conclusive=others <= OTHERS)


def _spread(times: Times) -> str:
    """Return median, least and most in milliseconds: these are too short for seconds."""
    readings = (times.median, min(times.seconds), max(times.seconds))
    middle, low, high = (1000 * one for one in readings)
    return f"{middle:.1f} ms ({low:.1f}-{high:.1f}, n={len(times.seconds)})"


def _installed() -> Path | None:
    """Return the interpreter of the newest vLLM environment that the local form built here."""
    found = sorted(
        ROOT.glob("build/**/environments/vllm-*/bin/python"), key=lambda path: path.lstat().st_mtime
    )
    return found[-1] if found else None


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
@click.option(
    "--vllm",
    "python",
    type=click.Path(path_type=Path, exists=True),
    help="Interpreter of an environment with vLLM; by default that of the local form.",
)
@click.argument("options", nargs=-1)
def main(*, as_data: bool, python: Path | None, options: tuple[str, ...]) -> None:
    """Measure and print; OPTIONS (after --) go to vLLM. Exit 1 when something was not measured."""

    def lanes() -> list[Figure]:
        interpreter = python or _installed()
        if interpreter is None:
            raise NotMeasuredError("no vLLM here: holdfast up --local builds one; or name --vllm")
        return measure_lanes(interpreter, WORK / "lanes", options)

    figures, whole = take({"lanes": lanes}, ())
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
