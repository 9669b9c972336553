"""Every figure of the installation: lock, build, verify, lab boot, apply.

`.venv/bin/python benchmarks/install.py [--json] [--only MEASUREMENT]... [--keep]`, as root. How to
read it is in README.md beside this file.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click
from figures import Figure, Times, ratio, seconds
from running import take, tell
from workshop import (
    HOSTS,
    ONE,
    THREE,
    WORK,
    Applied,
    Bench,
    load,
    refuse_without_lab,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERIFIES, BUILDS, BOOTS = 7, 3, 3  # how often what is measured more than once
QUIET = 0.15  # share of the machine that others may use while a long single reading is taken
WORK_DONE = "processor time, which others disturb less than the clock"
# -n: without it xargs gives every path to one process, and -P2 would say nothing
SHA256SUM = "find . -type f -print0 | xargs -0 -P2 -n 16 sha256sum >/dev/null"
OPENSSL = "find . -type f -print0 | xargs -0 -P2 -n 16 openssl dgst -sha256 >/dev/null"


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


def measure_apply(bench: Bench) -> list[Figure]:
    """Apply to one host, then to three, then to the same three again."""
    one = bench.apply_to_one
    bench.down(ONE)  # its services would compete with the next
    three = bench.first_apply(THREE)
    say(f"  {load()}; the same apply again")
    again = bench.apply(THREE)
    same = f"the same hosts again, {_changed(THREE)} tasks changed something"
    return [
        seconds("apply-1", one.wall, "bare all-in-one host; the baseline of apply-3"),
        seconds("apply-3", three.wall, "bare hosts: control and two serving, two replicas"),
        _on_the_clock("apply-3-ratio", three, one, "apply-1", 1.6),
        ratio("apply-3-processor", three.processor, one.processor, f"apply-1; {WORK_DONE}"),
        seconds("apply-noop", again.wall, same),
        _on_the_clock("apply-noop-ratio", again, three, "apply-3", 0.2),
        ratio("apply-noop-processor", again.processor, three.processor, f"apply-3; {WORK_DONE}"),
    ]


def _on_the_clock(
    name: str, ours: Applied, theirs: Applied, baseline: str, at_most: float
) -> Figure:
    """Compare two single long readings; no verdict where others took much of the machine."""
    told = (
        f"{baseline}, on the clock; others used {ours.others:.0%} and {theirs.others:.0%} "
        "of the machine meanwhile"
    )
    figure = ratio(name, ours.wall, theirs.wall, told, at_most)
    return replace(figure, conclusive=max(ours.others, theirs.others) <= QUIET)


def _changed(lab: str) -> int:
    newest = max((WORK / "journal" / lab).glob("*-apply"))
    return sum(json.loads((newest / "record.json").read_text())["changed"].values())


MEASUREMENTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "lock": measure_lock,
    "build": measure_build,
    "verify": measure_verify,
    "boot": measure_boot,
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
    bench = Bench()
    try:
        taken = {name: partial(measure, bench) for name, measure in MEASUREMENTS.items()}
        figures, whole = take(taken, only)
    finally:
        if not keep:
            bench.down(*HOSTS)
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
