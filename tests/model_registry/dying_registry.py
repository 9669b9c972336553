"""The registry's command, killed at its n-th durable step once a file says which; see test_kill."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from holdfast_hub_protocol import blobs
from holdfast_hub_protocol.lfs import batch
from holdfast_model_registry.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

ARMED = Path(os.environ["DYING_ARMED"])  # holds the number of the step, from 1
STEPS = ARMED.with_suffix(".steps")  # the names of the steps that were taken
MAIN = os.getpid()  # of the workers' parent, which would start a dead worker again
_lock = threading.Lock()
_taken = 0


def step(name: str) -> None:
    """Take a durable step, or die in its place."""
    global _taken  # noqa: PLW0603 - a count for the whole process
    if not ARMED.exists():
        return
    with _lock:
        _taken += 1
        with STEPS.open("a") as file:
            file.write(f"{name}\n")
        if _taken == int(ARMED.read_text()):
            os.kill(MAIN, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def stepping(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a step before it, and one after."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        step(f"before {name}")
        result = function(*arguments, **named)
        step(f"after {name}")
        return result

    return wrapped


for each in ("fsync", "fdatasync", "replace", "link"):
    setattr(os, each, stepping(each, getattr(os, each)))
blobs.ReceivedFile.write = stepping("write", blobs.ReceivedFile.write)  # type: ignore[method-assign]
sa.event.listen(sa.Engine, "commit", lambda _: step("before commit"))
if os.environ.get("DYING_PARTS"):
    batch._part_size = lambda size: 300_000 if size > 300_000 else 0
main(sys.argv[1:])
