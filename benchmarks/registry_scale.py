"""Scale: what the server holds in memory under ten uploads, and listings of many repositories."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING, Self

from figures import Figure
from registry_load import press
from registry_populate import populate, templates
from registry_servers import ADA, registry
from registry_workshop import GIB, Watch, client_environment, write_weights
from servers import BIN
from workshop import NotMeasuredError, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from registry_workshop import Workshop
    from servers import Running

UPLOADS = 10
MEGABYTES = 400
SAMPLE = 0.2  # seconds between two looks
COUNTS = (1_000, 10_000, 100_000)
MILLISECONDS, FLAT = 50, 1.5
LISTINGS = (
    "/api/models?limit=100",
    "/api/models?sort=lastModified&limit=100",
    "/api/models?search=llama&limit=100",
    "/api/models?author=research&filter=license:mit&limit=100",
    "/api/models?sort=downloads&full=true&limit=20",
)


class Peak:
    """Looks at a server's memory again and again until the block ends."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.most = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(SAMPLE):
            self.most = max(self.most, self.server.memory())


def measure_memory(workshop: Workshop) -> list[Figure]:
    """Upload ten files of 1 GiB at once, by either path, and watch the server's memory."""
    source = workshop.fresh("source")
    source.mkdir()
    first = source / "0.safetensors"
    write_weights(first, GIB)
    files = [first] + [_another(first, number) for number in range(1, UPLOADS)]
    figures = []
    for name, environment in (("xet", {}), ("lfs", {"HF_HUB_DISABLE_XET": "1"})):
        with registry(workshop.fresh("registry")) as server:
            idle = server.memory()
            with Peak(server) as peak:
                _upload_all(workshop, server, files, environment)
            told = (
                f"the most that all its processes held (PSS) while {UPLOADS} `hf upload` of 1 GiB "
                f"ran at once, {idle / 1e6:.0f} MB before"
            )
            figures.append(Figure(f"memory-{name}", peak.most / 1e6, "MB", told, MEGABYTES))
        shutil.rmtree(server.data)
    shutil.rmtree(source)
    return figures


def _another(first: Path, number: int) -> Path:
    """Copy a file and turn some bytes of each MiB, so that little of it is known already."""
    path = first.with_name(f"{number}.safetensors")
    shutil.copy(first, path)
    chance = random.Random(number)
    with path.open("r+b") as file:
        for place in range(1 << 20, path.stat().st_size, 1 << 16):
            file.seek(place)
            file.write(chance.randbytes(16))
    return path


def _upload_all(
    workshop: Workshop, server: Running, files: Sequence[Path], environment: dict[str, str]
) -> None:
    clients = []
    for file in files:
        home = workshop.fresh("home")
        home.mkdir()
        log = (home / "log").open("w")
        command = [BIN / "hf", "upload", f"research/{file.stem}", file]
        options = client_environment(server.url, home) | environment
        clients.append(
            (home, subprocess.Popen(command, env=options, stdout=log, stderr=subprocess.STDOUT))
        )
        log.close()
    failed = [home for home, client in clients if client.wait()]
    if failed:
        said = (failed[0] / "log").read_text()[-400:]
        raise NotMeasuredError(f"{len(failed)} of {len(files)} uploads failed: {said}")


def measure_listing(workshop: Workshop) -> list[Figure]:
    """List among 1,000, 10,000 and 100,000 repositories, a quarter of them somebody else's."""
    slowest: dict[int, tuple[float, str]] = {}
    judged = []
    for count in COUNTS:
        folder = workshop.fresh("registry")
        with registry(folder, models=templates(folder / "models")):
            pass  # it takes them in when it starts
        populate(folder / "data", count)
        with registry(folder) as server:
            watch = Watch(server)
            found = []
            for path in LISTINGS:
                url = server.url + path
                press([url], ADA, seconds=0.5, connections=1)
                load = press([url], ADA, seconds=3, connections=1)
                say(f"  {count} repositories, {path}: {load}", markup=False)
                found.append((load.p95 * 1000, path))
            slowest[count] = max(found)
            goal = MILLISECONDS if count == COUNTS[1] else None
            told = f"p95 of the slowest of {len(LISTINGS)} listings, {slowest[count][1]}"
            figure = Figure(f"listing-{count}", slowest[count][0], "ms", told, goal)
            judged += watch.judged(figure)
        shutil.rmtree(folder)
    growth = slowest[COUNTS[2]][0] / slowest[COUNTS[1]][0]
    told = f"p95 among {COUNTS[2]} repositories to that among {COUNTS[1]}"
    quiet = all(figure.conclusive for figure in judged)
    return [*judged, Figure("listing-growth", growth, "ratio", told, FLAT, conclusive=quiet)]
