"""An apply to a lab's site in the background, to be watched by its journal and disturbed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quick_site import HOLDFAST, ROOT, QuickSite, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Events = list[dict[str, object]]


class Running:
    """An apply in the lab's operator namespace, and what its journal says so far."""

    def __init__(self, site: QuickSite, *options: str) -> None:
        command = [*site.inside("operator", HOLDFAST, "apply"), "--site", site.site_file]
        self._site = site
        self._output = site.folder / "apply.out"
        with self._output.open("w") as output:
            # A session of its own stands for a terminal of its own, for Ctrl-C.
            self.process = subprocess.Popen(
                [*command, "--bundle", site.bundle, "--json", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # nothing, where it ended
        self.process.wait()

    def journal(self) -> Path | None:
        """Return the journal's folder, once this apply has opened it."""
        for folder in sorted(self._site.folder.glob("journal/*-apply"), reverse=True):
            with contextlib.suppress(FileNotFoundError):
                record = json.loads((folder / "record.json").read_text())
                return folder if record["process"] == self.process.pid else None
        return None

    def events(self) -> Events:
        folder = self.journal()
        if folder is None or not (folder / "events.jsonl").exists():
            return []
        lines = (folder / "events.jsonl").read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def wait_for(self, what: Callable[[Events], bool]) -> Events:
        """Wait until the events are so; an apply that ends before is a failure of the test."""
        while not what(events := self.events()):
            assert self.process.poll() is None, f"it ended after {len(events)}: {self.printed()}"
            time.sleep(0.2)
        return events

    def child(self, word: str) -> int:
        """Return the child of this apply with `word` in its command line."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found = [
            int(child)
            for child in children
            if word.encode() in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        assert len(found) == 1, children
        return found[0]

    def ansible(self) -> int:
        return self.child("playbook")

    def printed(self) -> str:
        return self._output.read_text()

    def end(self) -> int:
        """Wait for its end, whatever becomes of it."""
        return self.process.wait(timeout=1200)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        state: str = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def tell(text: str) -> None:
    """Say how it goes; pytest shows it with -s, and beside a failure."""
    sys.stdout.write(f"{text}\n")


def soon(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def records(site: QuickSite) -> Events:
    """Return what every apply to this site came to, oldest first."""
    files = sorted(site.folder.glob("journal/*-apply/record.json"))
    return [json.loads(file.read_text()) for file in files]


def came(events: Events, **fields: str) -> bool:
    """Tell whether an event with these fields is among them."""
    wanted: Mapping[str, str] = fields
    return any(all(event.get(name) == wanted[name] for name in wanted) for event in events)
