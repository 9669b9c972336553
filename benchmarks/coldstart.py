"""From the start of a vLLM unit to its first token, cold, warm, on standby, and by scaling.

`.venv/bin/python benchmarks/coldstart.py --vllm PYTHON [--json] [--only MEASUREMENT]... [--keep]`;
`unit` and `scale` need root and a lab. How to read it is in README.md beside this file.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
import time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: an inventory is nested plain data

import click
import yaml
from figures import Figure, Times, ratio, seconds
from on_host.first_token import first_token
from running import take, tell
from servers import BIN, free_port, started
from vllm_start import Replica, Start
from workshop import HOSTS, ONE, ROOT, STARTER, WORK, Bench, NotMeasuredError, load, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ON_HOST = Path(__file__).with_name("on_host")
STARTS = 2  # of each kind, by turns
JOINS = 5
CLIENTS = 8
STOP = "/run/holdfast-benchmark-stop"
WORK_DONE = "processor time, which others disturb less than the clock"


def measure_start(python: Path) -> list[Figure]:
    """Start what the unit starts and bare vLLM with the same flags, cold and warm, by turns."""
    folder = WORK / "coldstart"
    shutil.rmtree(folder, ignore_errors=True)
    ways = {
        "start": Replica(python, folder / "unit", bare=False),
        "bare": Replica(python, folder / "bare", bare=True),
    }
    readings: dict[str, list[Start]] = {}
    for _ in range(STARTS):
        for state in ("cold", "warm"):
            for name, replica in ways.items():
                if state == "cold":
                    replica.forget()
                with replica.running() as start:
                    readings.setdefault(f"{name}-{state}", []).append(start)
                say(f"  {load()}; {name}-{state}: {start}", markup=False)
    times = {name: Times(tuple(one.first_token for one in took)) for name, took in readings.items()}
    used = {name: Times(tuple(one.processor for one in took)) for name, took in readings.items()}
    bare = "`python -m vllm...` with the same flags and nothing else"
    return [
        seconds("start-cold", times["start-cold"], "caches empty, files given back to the disk"),
        seconds("start-warm", times["start-warm"], "the start after it"),
        seconds("bare-cold", times["bare-cold"], bare),
        seconds("bare-warm", times["bare-warm"], bare),
        ratio("start-cold-ratio", times["start-cold"], times["bare-cold"], f"{bare}, cold"),
        ratio("start-warm-ratio", times["start-warm"], times["bare-warm"], f"{bare}, warm"),
        ratio(
            "start-warm-processor",
            used["start-warm"],
            used["bare-warm"],
            f"{bare}, warm; {WORK_DONE}",
        ),
    ]


def measure_standby(python: Path) -> list[Figure]:
    """Put a replica that runs into the list of a balancer that has none, again and again."""
    folder = WORK / "coldstart"
    shutil.rmtree(folder / "standby", ignore_errors=True)
    replica = Replica(python, folder / "standby", bare=False)
    joined = []
    with replica.running() as start:
        for _ in range(JOINS):
            with _balancer(folder) as address:
                began = time.monotonic()
                _list(folder / "workers.json", replica.url)
                _until(partial(_answers, address))
                joined.append(time.monotonic() - began)
            say(f"  {load()}; joined after {joined[-1]:.2f} s", markup=False)
    told = "from the line in the balancer's list to the first token through it"
    return [
        seconds("standby-first-token", Times(tuple(joined)), told),
        ratio(
            "standby-ratio",
            Times(tuple(joined)),
            Times((start.first_token,)),
            "starting the same replica, its caches empty",
        ),
    ]


@contextlib.contextmanager
def _balancer(folder: Path) -> Iterator[str]:
    """Run smg with the flags of the site's and an empty list, for a while already."""
    workers, tls = folder / "workers.json", folder / "standby"
    _list(workers)
    port = free_port()
    command = [BIN / "smg", "launch", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    command += ["--backend", "vllm", "--policy", "cache_aware", "--disable-tokenizer-autoload"]
    command += ["--discovery-provider", "file", "--discovery-file", workers]
    command += ["--discovery-check-interval-secs", "2", "--worker-startup-check-interval", "1"]
    command += ["--client-cert-path", tls / "host.pem", "--client-key-path", tls / "host.key"]
    command += ["--ca-cert-paths", tls / "ca.pem"]
    command += ["--history-backend", "none", "--log-level", "warn"]
    with started(command, port, folder / "smg", "/liveness") as running:
        time.sleep(3)
        yield running.url


def _list(workers: Path, *urls: str) -> None:
    partial_ = workers.with_suffix(".partial")
    partial_.write_text(json.dumps({"version": 1, "workers": [{"url": url} for url in urls]}))
    partial_.replace(workers)


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        first_token(address, STARTER, None)
        return True
    return False


def _until(condition: Callable[[], bool], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise NotMeasuredError(f"the balancer did not follow its list within {patience:g} s")
        time.sleep(0.02)


def measure_unit(bench: Bench) -> list[Figure]:
    """Start the unit of the all-in-one host, cold and warm by turns."""
    say(f"  {ONE} stands after {bench.apply_to_one.wall}")
    asked = _unit_of(ONE)
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(STARTS):
        for state, readings in runs.items():
            argument = json.dumps({**asked, "cold": state == "cold"})
            printed = bench.on_host(ONE, "control-1", ON_HOST / "first_token.py", argument)
            say(f"  {load()}; {state}: {printed.strip()}", markup=False)
            readings.append(json.loads(printed))

    def times(state: str, ends: str, begins: str = "") -> Times:
        needed = {ends, begins} - {""}
        if any(needed - one.keys() for one in runs[state]):
            raise NotMeasuredError(f"the unit's journal lacks one of {', '.join(sorted(needed))}")
        return Times(tuple(one[ends] - one.get(begins, 0) for one in runs[state]))

    cold, warm = times("cold", "first_token"), times("warm", "first_token")
    kept = max(one["still_in_memory"] for one in runs["cold"])
    pages = f"its files out of the page cache ({kept:.0%} still in it)"
    made = [
        seconds("vllm-cold", cold, f"caches of the unit empty, {pages}"),
        seconds("vllm-warm", warm, "the start after it: caches in place, files in the page cache"),
        ratio("vllm-warm-ratio", warm, cold, "vllm-cold"),
        ratio(
            "vllm-warm-processor",
            times("warm", "processor"),
            times("cold", "processor"),
            f"vllm-cold; {WORK_DONE}",
        ),
    ]
    parts = (
        ("process", "process", "engine", "exec to the engine's first line: two rounds of imports"),
        ("worker", "engine", "weights", "from there to loaded weights: the worker's imports"),
        ("engine", "weights", "engine_ready", "what vLLM calls init engine: KV cache, compilation"),
    )
    for name, begins, ends, told in parts:
        slow = times("cold", ends, begins)
        made.append(
            seconds(f"vllm-warm-{name}", times("warm", ends, begins), f"{told}; cold: {slow}")
        )
    return made


def _unit_of(lab: str) -> dict[str, str]:
    """Return what the inventory of the last apply says about the first replica."""
    host = _inventory(lab)["all"]["hosts"]["control-1"]["host"]
    replica = host["replicas"][0]
    return {
        "unit": replica["unit"],
        "address": f"https://{host['fqdn']}:{replica['port']}",
        "model": replica["model"],
        "model_path": replica["model_path"],
        "environment": "/opt/holdfast/current/vllm",
        "tls": "/etc/holdfast/tls",
    }


def measure_scale(bench: Bench) -> list[Figure]:
    """Add a replica on the all-in-one host by command, while clients ask its balancer."""
    say(f"  {ONE} stands after {bench.apply_to_one.wall}")
    port = _inventory(ONE)["all"]["vars"]["plan"]["pools"][0]["port"]
    asked = {"port": port, "model": STARTER, "clients": CLIENTS, "replicas": 1, "stop": STOP}
    printed: list[str] = []

    def ask() -> None:
        argument = json.dumps(asked)
        printed.append(bench.on_host(ONE, "control-1", ON_HOST / "scaling_load.py", argument))

    on_host = ("lab", "exec", "--name", ONE, "control-1", "--")
    bench.holdfast(*on_host, "rm", "-f", STOP)
    clients = threading.Thread(target=ask)
    clients.start()
    began = time.time()
    try:
        took = bench.holdfast(
            *("scale", STARTER, "2", "--site", str(WORK / f"{ONE}.yml")),
            *("--bundle", str(bench.bundle), "--journal", str(WORK / "journal" / ONE)),
            operator_of=ONE,
        )
    finally:
        bench.holdfast(*on_host, "touch", STOP)
        clients.join()
    if not printed:
        raise NotMeasuredError("the load on the control host ended early; see the log")
    seen = json.loads(printed[0])
    say(f"  {load()}; {seen}", markup=False)
    if seen["grew"] is None:
        raise NotMeasuredError("the balancer never sent requests to a second replica")
    told = (
        f"{CLIENTS} clients asked meanwhile: {seen['before']} answers before it, "
        f"{seen['after']} after, {seen['failed']} failed"
    )
    return [
        seconds(
            "scale-serving",
            Times((seen["grew"] - began,)),
            f"`holdfast scale {STARTER} 2` to a second replica that is sent requests; {told}",
        ),
        seconds("scale-command", Times((took,)), "the same command to its end"),
    ]


def _inventory(lab: str) -> dict[str, Any]:
    newest = max((WORK / "journal" / lab).glob("*-apply"))
    found: dict[str, Any] = yaml.safe_load((newest / "inventory.yml").read_text())
    return found


def _installed() -> Path:
    """Return the interpreter of the newest vLLM environment that the local form built here."""
    found = sorted(
        ROOT.glob("build/**/environments/vllm-*/bin/python"), key=lambda path: path.lstat().st_mtime
    )
    if not found:
        raise NotMeasuredError("no vLLM here: holdfast up --local builds one; or name --vllm")
    return found[-1]


NAMES = ("start", "standby", "unit", "scale")


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="May be repeated.")
@click.option(
    "--vllm",
    "python",
    type=click.Path(path_type=Path, exists=True),
    help="Interpreter of an environment with vLLM; by default that of the local form.",
)
@click.option("--keep", is_flag=True, help="Leave the lab that stands at the end.")
def main(*, as_data: bool, only: tuple[str, ...], python: Path | None, keep: bool) -> None:
    """Measure and print; exit 1 when something could not be measured, whatever the goals say."""
    bench = cache(Bench)  # it takes down labs that an earlier run left: only where one is wanted
    taken: dict[str, Callable[[], list[Figure]]] = {
        "start": lambda: measure_start(python or _installed()),
        "standby": lambda: measure_standby(python or _installed()),
        "unit": lambda: measure_unit(bench()),
        "scale": lambda: measure_scale(bench()),
    }
    try:
        figures, whole = take(taken, only)
    finally:
        if bench.cache_info().currsize and not keep:
            bench().down(*HOSTS)
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
