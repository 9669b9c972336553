"""Every figure of the installation: lock, build, verify, lab boot, apply, first token.

`.venv/bin/python benchmarks/install.py [--json] [--only MEASUREMENT]... [--keep]`, as root. How to
read it is in README.md beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import yaml
from figures import Figure, Times, as_json, as_table, ratio, seconds
from rich.console import Console

from holdfast_installer.lab.machine import missing_for_lab

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"
HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
STARTER = "holdfast/starter"
STARTER_FOLDER = ROOT / "model-registry" / "starter" / "holdfast-starter"
ON_HOST = Path(__file__).with_name("on_host") / "first_token.py"
ONE, THREE = "bench1", "bench3"
HOSTS = {ONE: ("control-1",), THREE: ("control-1", "serving-1", "serving-2")}
VERIFIES, BUILDS, BOOTS, STARTS = 7, 3, 3, 2  # how often what is measured more than once
# -n: without it xargs gives every path to one process, and -P2 would say nothing
SHA256SUM = "find . -type f -print0 | xargs -0 -P2 -n 16 sha256sum >/dev/null"
OPENSSL = "find . -type f -print0 | xargs -0 -P2 -n 16 openssl dgst -sha256 >/dev/null"

# One console for people on stderr: progress while it runs. The table is data, on stdout.
say = Console(stderr=True, highlight=False).print


class NotMeasuredError(Exception):
    """A command failed or something is missing; the text says which."""


class Bench:
    """The work folder, the bundle in it, and the labs this run has booted."""

    def __init__(self) -> None:
        WORK.mkdir(parents=True, exist_ok=True)
        # Keys and labs of our own: nothing of the operator's is touched. The cache is shared.
        self._environment = {**os.environ, "HOLDFAST_STATE": str(WORK / "state")}
        self.log = WORK / "log.txt"
        self.log.write_text("")
        self.down(*HOSTS)

    def timed(self, *command: str, folder: Path = ROOT) -> float:
        """Run a command, its output into the log, and return its seconds."""
        return self._run(command, folder)[0]

    def holdfast(self, *arguments: str, operator_of: str = "") -> float:
        """Run a holdfast command, where given in a lab's operator namespace; return its seconds."""
        command = (HOLDFAST, *arguments)
        if operator_of:
            command = (HOLDFAST, "lab", "exec", "--name", operator_of, "operator", "--", *command)
        return self.timed(*command)

    def on_host(self, lab: str, host: str, script: Path, argument: str) -> str:
        """Run a script of ours on a host of the lab and return what it prints."""
        enter = (HOLDFAST, "lab", "exec", "--name", lab, host, "--")
        return self._run((*enter, "/usr/bin/python3", "-", argument), ROOT, script.read_bytes())[1]

    def _run(self, command: tuple[str, ...], folder: Path, stdin: bytes = b"") -> tuple[float, str]:
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=folder,
            env=self._environment,
            input=stdin,
            capture_output=True,
            check=False,
        )
        took = time.monotonic() - began
        output, complaint = done.stdout.decode(), done.stderr.decode(errors="replace")
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{output}{complaint}[{took:.2f} s]\n")
        if done.returncode:
            last = " / ".join(line.strip() for line in complaint.strip().splitlines()[-6:])
            shown = " ".join(command).replace(HOLDFAST, "holdfast")
            raise NotMeasuredError(f"`{shown}` ended with {done.returncode}: {last}")
        return took, output

    def shell(self, line: str, folder: Path) -> float:
        """Run a line of shell in a folder and return its seconds: baselines are such lines."""
        return self.timed("sh", "-eu", "-c", line, folder=folder)

    def up(self, lab: str) -> float:
        """Boot a lab's hosts, or what of them is down."""
        refuse_without_lab()
        return self.holdfast("lab", "up", "--name", lab, "--hosts", ",".join(HOSTS[lab]))

    def down(self, *labs: str) -> None:
        """Take labs away; where there is none, nothing happens."""
        if os.geteuid() == 0:
            for lab in labs:
                self.holdfast("lab", "down", "--name", lab)

    @cached_property
    def site_to_lock(self) -> Path:
        """A site file for the bundle's sake; its host is never contacted."""
        return self._site("lock", "--host", "control-1=198.18.0.11=control+serving=cpu")

    def _site(self, name: str, *hosts: str) -> Path:
        path = WORK / f"{name}.yml"
        path.unlink(missing_ok=True)
        self.holdfast(
            *("init", "--name", name, "--domain", f"{name}.internal", "--jurisdiction", "de"),
            *(*hosts, "--model", f"{STARTER}={STARTER_FOLDER}", "--team", "research=ada"),
            *("--operators", "198.18.0.0/15") if "--host" in hosts else (),
            *("--output", str(path)),
        )
        return path

    def lock(self) -> float:
        """Lock, keeping the pins there are."""
        return self.holdfast(
            "bundle", "lock", "--site", str(self.site_to_lock), "-o", str(WORK / "bundle.lock")
        )

    def build(self, name: str) -> float:
        """Build into a folder of this name."""
        return self.holdfast(
            "bundle", "build", "--lock", str(WORK / "bundle.lock"), "-o", str(WORK / name)
        )

    @cached_property
    def bundle(self) -> Path:
        """The real bundle with the starter model; the first build also fills the cache."""
        self.lock()
        self.build("bundle")
        return WORK / "bundle"

    def apply(self, lab: str) -> float:
        """Apply as the operator does: verify, survey, plan and converge are all in it."""
        return self.holdfast(
            *("apply", "--site", str(WORK / f"{lab}.yml"), "--bundle", str(self.bundle)),
            *("--journal", str(WORK / "journal" / lab)),
            operator_of=lab,
        )

    def first_apply(self, lab: str) -> float:
        """Boot bare hosts and apply to them."""
        self.up(lab)
        self._site(lab, "--lab", lab)
        shutil.rmtree(WORK / "journal" / lab, ignore_errors=True)
        say(f"  {load()}; first apply of {lab}: minutes")
        return self.apply(lab)

    @cached_property
    def apply_to_one(self) -> Times:
        """The first apply to one all-in-one host, which stands afterwards."""
        return Times((self.first_apply(ONE),))


def refuse_without_lab() -> None:
    """Say what a lab would need."""
    if missing := missing_for_lab():
        raise NotMeasuredError(f"no lab on this machine: {'; '.join(missing)}")


def load() -> str:
    """Return the load averages: how much of a reading may be the work of others."""
    one, five, fifteen = os.getloadavg()
    return f"load {one:.1f} {five:.1f} {fifteen:.1f} on {os.cpu_count()} cores"


def measure_lock(bench: Bench) -> list[Figure]:
    """Resolve anew, then keep the pins."""
    (WORK / "bundle.lock").unlink(missing_ok=True)
    fresh = Times((bench.lock(),))
    kept = Times(tuple(bench.lock() for _ in range(BUILDS)))
    told = "no baseline: apt's and pip's resolution over the network, blobs cached"
    return [
        seconds("lock-from-nothing", fresh, told),
        seconds("lock-pins-kept", kept, "own wheels are built anew each time"),
        ratio("lock-pins-kept-ratio", kept, fresh, "lock from nothing"),
    ]


def measure_build(bench: Bench) -> list[Figure]:
    """Build a new bundle from a full cache; hash and link the same blobs without Holdfast."""
    blobs = bench.bundle / "blobs"
    built, linked, copied = [], [], []
    for _ in range(BUILDS):
        for name in ("built", "linked", "copied"):
            shutil.rmtree(WORK / name, ignore_errors=True)
        built.append(bench.build("built"))
        linked.append(bench.shell(f"{SHA256SUM}; cp -rl . {WORK / 'linked'}", blobs))
        copied.append(bench.shell(f"cp -r . {WORK / 'copied'}", blobs))
    for name in ("built", "linked", "copied"):
        shutil.rmtree(WORK / name)
    ours = Times(tuple(built))
    return [
        seconds("build-warm", ours, f"{_size(blobs)}, all in the cache; every byte hashed"),
        ratio("build-warm-ratio", ours, Times(tuple(linked)), "`xargs -P2 sha256sum; cp -rl`"),
        ratio("build-warm-to-copy", ours, Times(tuple(copied)), "`cp -r`, which checks nothing"),
    ]


def measure_verify(bench: Bench) -> list[Figure]:
    """Verify and hash the same blobs by turns, all of them in the page cache."""
    blobs = bench.bundle / "blobs"
    bench.shell(SHA256SUM, blobs)
    ours, theirs, openssl = [], [], []
    for _ in range(VERIFIES):
        ours.append(bench.holdfast("bundle", "verify", str(bench.bundle)))
        theirs.append(bench.shell(SHA256SUM, blobs))
        if shutil.which("openssl"):
            openssl.append(bench.shell(OPENSSL, blobs))
    times = Times(tuple(ours))
    made = [
        seconds("verify", times, f"{_size(blobs)} in the page cache"),
        ratio("verify-ratio", times, Times(tuple(theirs)), "`xargs -P2 sha256sum`", 1.25),
    ]
    if openssl:
        command = "`xargs -P2 openssl dgst -sha256`, which uses the processor's SHA instructions"
        made.append(ratio("verify-to-openssl", times, Times(tuple(openssl)), command))
    return made


def _size(blobs: Path) -> str:
    files = [path.stat().st_size for path in blobs.rglob("*") if path.is_file()]
    return f"{len(files)} blobs, {sum(files) / 1e6:.0f} MB"


def measure_boot(bench: Bench) -> list[Figure]:
    """Boot one host and three from nothing by turns; boot the one again in its standing lab."""
    refuse_without_lab()
    bench.up(ONE)  # builds the root file system where the cache has none
    bench.down(ONE)
    one, again, three = [], [], []
    for _ in range(BOOTS):
        one.append(bench.up(ONE))
        bench.holdfast("lab", "down", "--name", ONE, "--host", *HOSTS[ONE])
        again.append(bench.up(ONE))
        bench.down(ONE)
        three.append(bench.up(THREE))
        bench.down(THREE)
    single, triple = Times(tuple(one)), Times(tuple(three))
    told = "from nothing to SSH, root file system cached"
    baseline = "the same host booted again in its standing lab (systemd-nspawn to SSH)"
    return [
        seconds("lab-boot-1", single, told),
        ratio("lab-boot-1-ratio", single, Times(tuple(again)), baseline),
        seconds("lab-boot-3", triple, told),
        ratio("lab-boot-3-ratio", triple, single, "lab-boot-1"),
    ]


def measure_vllm(bench: Bench) -> list[Figure]:
    """Start the unit of the all-in-one host, cold and warm by turns."""
    said_of = bench.apply_to_one
    say(f"  {ONE} stands after {said_of}")
    asked = _unit_of(ONE)
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(STARTS):
        for state, readings in runs.items():
            argument = json.dumps({**asked, "cold": state == "cold"})
            printed = bench.on_host(ONE, "control-1", ON_HOST, argument)
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
    ]
    parts = (
        ("process", "process", "engine", "from exec to the engine: imports, configuration"),
        ("engine", "engine", "listening", "from the engine's first line to serving"),
    )
    for name, begins, ends, told in parts:
        slow = times("cold", ends, begins)
        made.append(
            seconds(f"vllm-warm-{name}", times("warm", ends, begins), f"{told}; cold: {slow}")
        )
    return made


def _unit_of(lab: str) -> dict[str, str]:
    """Return what the inventory of the last apply says about the first replica."""
    newest = max((WORK / "journal" / lab).glob("*-apply"))
    inventory = yaml.safe_load((newest / "inventory.yml").read_text())
    host = inventory["all"]["hosts"]["control-1"]["host"]
    replica = host["replicas"][0]
    return {
        "unit": replica["unit"],
        "address": f"https://{host['fqdn']}:{replica['port']}",
        "model": replica["model"],
        "model_path": replica["model_path"],
        "environment": "/opt/holdfast/current/vllm",
        "tls": "/etc/holdfast/tls",
    }


def measure_apply(bench: Bench) -> list[Figure]:
    """Apply to one host, then to three, then to the same three again."""
    one = bench.apply_to_one
    bench.down(ONE)  # its services would compete with the next
    three = Times((bench.first_apply(THREE),))
    say(f"  {load()}; the same apply again")
    again = Times((bench.apply(THREE),))
    changed = _changed(THREE)
    return [
        seconds("apply-1", one, "bare all-in-one host; the baseline of apply-3"),
        seconds("apply-3", three, "bare hosts: control and two serving, two replicas"),
        ratio("apply-3-ratio", three, one, "apply-1", 1.6),
        seconds("apply-noop", again, f"the same hosts again, {changed} tasks changed something"),
        ratio("apply-noop-ratio", again, three, "apply-3", 0.2),
    ]


def _changed(lab: str) -> int:
    newest = max((WORK / "journal" / lab).glob("*-apply"))
    return sum(json.loads((newest / "record.json").read_text())["changed"].values())


# In this order: vllm uses the host that apply-1 made, apply takes it down.
MEASUREMENTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "lock": measure_lock,
    "build": measure_build,
    "verify": measure_verify,
    "boot": measure_boot,
    "vllm": measure_vllm,
    "apply": measure_apply,
}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(MEASUREMENTS)), help="May be repeated."
)
@click.option("--keep", is_flag=True, help="Leave the labs that stand at the end.")
def main(*, as_data: bool, only: tuple[str, ...], keep: bool) -> None:
    """Measure and print; exit 1 when something could not be measured, whatever the goals say."""
    signal.signal(signal.SIGTERM, _stop)
    bench = Bench()
    figures: list[Figure] = []
    whole = True
    try:
        for name, measure in MEASUREMENTS.items():
            if only and name not in only:
                continue
            say(f"{time.strftime('%H:%M:%S')} {name}: {load()}")
            try:
                figures += measure(bench)
            except NotMeasuredError as problem:
                say(f"  not measured: {problem}", markup=False)
                figures.append(Figure(name, None, "", str(problem)))
                whole = False
    finally:
        if not keep:
            bench.down(*HOSTS)
    Console(width=None if sys.stdout.isatty() else 150).print(
        as_table(f"At the end {load()}", figures)
    )
    if as_data:
        print(as_json(figures))
    sys.exit(0 if whole else 1)


def _stop(signum: int, _: object) -> NoReturn:
    """Turn a termination into an exception, so that the labs are taken down."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    main()
