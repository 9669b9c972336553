"""What the measurements share: the work folder, the real bundle in it, and labs of their own."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from figures import Times
from rich.console import Console

from holdfast_installer.lab import processes
from holdfast_installer.lab.machine import missing_for_lab

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "benchmarks"
HOLDFAST = str(Path(sys.executable).with_name("holdfast"))
STARTER = "holdfast/starter"
STARTER_FOLDER = ROOT / "model-registry" / "starter" / "holdfast-starter"
ONE, THREE = "bench1", "bench3"
HOSTS = {ONE: ("control-1",), THREE: ("control-1", "serving-1", "serving-2")}

# For people, on stderr, while it runs. The table is data, on stdout.
say = Console(stderr=True, highlight=False, soft_wrap=True).print


class NotMeasuredError(Exception):
    """A command failed or something is missing; the text says which."""


class Applied(NamedTuple):
    """What an apply took: on the clock, and of all processors by its hosts and the operator.

    `others` is the share of the machine that went elsewhere meanwhile, 0 to 1.
    """

    wall: Times
    processor: Times
    others: float


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

    def apply(self, lab: str) -> Applied:
        """Apply as the operator does: verify, survey, plan and converge are all in it."""
        bundle = str(self.bundle)  # made before the clock runs
        before, machine = processor_seconds(lab), machine_seconds()
        took = self.holdfast(
            *("apply", "--site", str(WORK / f"{lab}.yml"), "--bundle", bundle),
            *("--journal", str(WORK / "journal" / lab)),
            operator_of=lab,
        )
        used = processor_seconds(lab) - before
        busy, there = (now - then for now, then in zip(machine_seconds(), machine, strict=True))
        return Applied(Times((took,)), Times((used,)), max(0.0, busy - used) / there)

    def first_apply(self, lab: str) -> Applied:
        """Boot bare hosts and apply to them."""
        self.up(lab)
        self._site(lab, "--lab", lab)
        shutil.rmtree(WORK / "journal" / lab, ignore_errors=True)
        say(f"  {load()}; first apply of {lab}: minutes")
        return self.apply(lab)

    @cached_property
    def apply_to_one(self) -> Applied:
        """The first apply to one all-in-one host, which stands afterwards."""
        return self.first_apply(ONE)


def refuse_without_lab() -> None:
    """Say what a lab would need."""
    if missing := missing_for_lab():
        raise NotMeasuredError(f"no lab on this machine: {'; '.join(missing)}")


def load() -> str:
    """Return the load averages: how much of a reading may be the work of others."""
    one, five, fifteen = os.getloadavg()
    return f"load {one:.1f} {five:.1f} {fifteen:.1f} on {os.cpu_count()} cores"


def machine_seconds() -> tuple[float, float]:
    """Return how long the machine's processors were busy so far, and how long there were any."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]  # waiting for a disk is idle too
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - idle) / ticks, sum(fields) / ticks


def processor_seconds(lab: str) -> float:
    """Return what the lab's hosts and our children have used so far.

    A process's own time and that of the children it waited for: each ended one is in its parent,
    at last in its host's PID 1. What others use is not in it; that they slow us down is.
    """
    ticks = 0
    for pid in processes.of_namespaces(f"hf-{lab}-"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ticks / os.sysconf("SC_CLK_TCK") + ours.ru_utime + ours.ru_stime
