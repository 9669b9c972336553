"""Reading: bytes through nginx, the stock client's download, and metadata."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING

from figures import Figure, ratio, seconds
from registry_load import Load, UnexpectedAnswerError, drain, fetch, press
from registry_mirror import mirror
from registry_servers import ADA, front, nginx, plain, registry
from registry_workshop import GIB, Watch, by_turns, per_second, speed, write_weights
from workshop import NotMeasuredError, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry_workshop import Workshop
    from servers import Running

WEIGHTS = "model.safetensors"
TURNS, DOWNLOADS = 5, 3
FILES = 1_000
SECONDS, CONNECTIONS = 5, 8


def measure_get(workshop: Workshop) -> list[Figure]:
    """GET 2 GiB through our nginx and from plain nginx: whole, in large ranges, in small ones."""
    with _two_fronts(workshop, 2 * GIB) as (ours, theirs, behind):
        size = _size(ours)
        figures: list[Figure] = []
        for name, pieces, at_least in (
            ("get-full", 0, 0.9),
            ("get-ranged", 256 << 20, 0.9),
            ("get-small-ranges", 8 << 20, None),
        ):
            ranges = _ranges(size, pieces)
            drain(ours, ADA, ranges)  # into the page cache
            drain(theirs, ADA, ranges)
            watch = Watch(*behind)
            times = by_turns(
                TURNS,
                lambda r=ranges: drain(ours, ADA, r)[0],
                lambda r=ranges: drain(theirs, ADA, r)[0],
            )
            told = f"plain nginx, {len(ranges) or 'no'} ranges ({per_second(size, times)})"
            made = speed(name, *times, told, at_least or 0)
            figures += watch.judged(made if at_least else _without_goal(made))
    return figures


def _without_goal(figure: Figure) -> Figure:
    return Figure(figure.name, figure.value, figure.unit, figure.baseline)


def _ranges(size: int, length: int) -> list[tuple[int, int]]:
    if not length:
        return []
    return [(first, min(first + length, size) - 1) for first in range(0, size, length)]


def _size(url: str) -> int:
    return drain(url, ADA)[1]


@contextlib.contextmanager
def _two_fronts(workshop: Workshop, size: int) -> Iterator[tuple[str, str, list[Running]]]:
    """Yield the URLs of one file through the registry's nginx and through a plain one."""
    source = workshop.fresh("source")
    source.mkdir()
    digest = write_weights(source / WEIGHTS, size)
    name = f"research/large/resolve/main/{WEIGHTS}"
    whole = (source / WEIGHTS).stat().st_size
    seeded = {"research/large": source}
    with (
        registry(workshop.fresh("registry"), "--accelerate", "nginx", models=seeded) as behind,
        nginx(workshop.fresh("front"), front(behind)) as ours,
        nginx(workshop.fresh("plain"), plain(source / WEIGHTS, name, whole, digest)) as theirs,
    ):
        yield f"{ours.url}/{name}", f"{theirs.url}/{name}", [behind, ours, theirs]
    shutil.rmtree(source)


def measure_download(workshop: Workshop) -> list[Figure]:
    """Download 1.5 GiB with `hf`, from us and from plain nginx that has the same headers."""
    with _two_fronts(workshop, 3 * GIB // 2) as (ours, theirs, behind):
        for url in (ours, theirs):
            drain(url, ADA)  # into the page cache

        def download(url: str) -> float:
            out = workshop.fresh("out")
            endpoint = url.partition("/research/")[0]
            took = workshop.client(
                endpoint, "download", "research/large", WEIGHTS, "--local-dir", out
            )
            shutil.rmtree(out)
            return took

        watch = Watch(*behind)
        times = by_turns(DOWNLOADS, lambda: download(ours), lambda: download(theirs))
        return [
            seconds("download", times[0], "`hf download` of 1.5 GiB, the client's start in it"),
            *watch.judged(
                ratio("download-ratio", *times, "`hf download` from plain nginx", at_most=1.1)
            ),
        ]


def measure_metadata(workshop: Workshop) -> list[Figure]:
    """Ask for headers, information and a tree of 1,000 files, of us and of a caching mirror."""
    source = workshop.fresh("source")
    _write_files(source)
    figures: list[Figure] = []
    with registry(workshop.fresh("registry"), models={"research/many": source}) as ours:
        commit = fetch(f"{ours.url}/api/models/research/many", ADA)[1]["sha"]
        # By commit: of a branch a mirror without its upstream does not answer everything.
        asked = {
            "head": ("HEAD", f"/research/many/resolve/{commit}/{WEIGHTS}"),
            "info": ("GET", f"/api/models/research/many/revision/{commit}"),
            "tree": ("GET", f"/api/models/research/many/tree/{commit}?recursive=true"),
        }
        readings = {name: _pressed(ours, *each) for name, each in asked.items()}
        try:
            with mirror(workshop.fresh("mirror"), ours, list(asked.values())) as theirs:
                beside = {name: _beside(theirs, *each) for name, each in asked.items()}
        except NotMeasuredError as problem:
            say(f"  no mirror beside it: {problem}", markup=False)
            beside = dict.fromkeys(asked, f"olah was not measured: {problem}")
    for name, load in readings.items():
        told = f"{load}; {CONNECTIONS} connections, one worker; {beside[name]}"
        figures += [
            Figure(f"{name}-rate", load.per_second, "1/s", told),
            Figure(f"{name}-p99", load.p99 * 1000, "ms", told),
        ]
    return figures


def _pressed(server: Running, method: str, path: str) -> Load:
    url, _ = fetch(server.url + path, ADA, method)  # a mirror may send on to another address
    press([url], ADA, method=method, seconds=1, connections=CONNECTIONS)
    return press([url], ADA, method=method, seconds=SECONDS, connections=CONNECTIONS)


def _beside(server: Running, method: str, path: str) -> str:
    try:
        return f"olah, its cache warm: {_pressed(server, method, path)}"
    except UnexpectedAnswerError as problem:
        return f"olah answers otherwise: {str(problem).splitlines()[0]}"


def _write_files(folder: Path) -> None:
    folder.mkdir()
    write_weights(folder / WEIGHTS, 1 << 20)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for number in range(FILES - 2):
        path = folder / f"part-{number % 10}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(number))
