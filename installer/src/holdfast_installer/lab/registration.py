"""Keep two operators from working on one lab at once, and two labs from one address range."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Namespaces belong to the machine, not to a state folder: so does the register of labs.
REGISTER = Path("/run/holdfast-lab")


@contextlib.contextmanager
def alone(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a lab; where another holds it, say so and wait."""
    REGISTER.mkdir(parents=True, exist_ok=True)
    path = REGISTER / f"{name}.lock"
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                say(f"lab {name} is being changed by process {holder}; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same(path, file.fileno()):
                continue  # `down` took the file away while we waited
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            return


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def claim(name: str) -> int:
    """Register the lab for this state folder and return its index; the same one each time."""
    with (REGISTER / "index").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = registered()
        own = str(layout.labs_dir())
        if name in known and known[name][0] != own:
            raise HoldfastError(
                f"a lab {name} belongs to another operator",
                where=known[name][0],
                next_command="holdfast lab up --name ANOTHER",
            )
        lab = layout.load(name)
        if lab:
            index = lab.index
        else:
            taken = {entry[1] for entry in known.values()} | _indexes_on_disk()
            free = (n for n in range(1, layout.LAST_INDEX + 1) if n not in taken)
            index = next(free, 0)
        if not index:
            raise HoldfastError(
                f"this machine has {layout.LAST_INDEX} labs, and no address range for one more",
                next_command="holdfast lab down --name ONE",
            )
        (REGISTER / f"{name}.json").write_text(json.dumps([own, index]))
        return index


def registered() -> dict[str, tuple[str, int]]:
    """Return {lab: (folder of its operator's labs, index)} since the machine's boot."""
    found = {}
    for path in REGISTER.glob("*.json"):
        with contextlib.suppress(ValueError, FileNotFoundError):
            folder, index = json.loads(path.read_text())
            found[path.stem] = (str(folder), int(index))
    return found


def _indexes_on_disk() -> set[int]:
    found = set()
    for path in layout.labs_dir().glob("*/lab.json"):
        with contextlib.suppress(HoldfastError):
            if lab := layout.load(path.parent.name):
                found.add(lab.index)
    return found


def forget(name: str) -> None:
    """Take the lab, and its lock, from the register; the caller holds the lock."""
    for suffix in ("json", "lock"):
        (REGISTER / f"{name}.{suffix}").unlink(missing_ok=True)
