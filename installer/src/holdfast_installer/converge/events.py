"""What Ansible's callback wrote: one JSON line per event, read while it grows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Event(BaseModel):
    """One thing Ansible did; only the fields the callback chose to write."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: float
    event: Literal[
        "playbook", "play", "task", "handler", "ok", "skipped", "failed", "unreachable", "stats"
    ]
    play: str = ""
    role: str = ""
    task: str = ""
    host: str = ""
    changed: int = 0  # of a result: whether it changed the host; of stats: how many did
    msg: str = ""


class EventReader:
    """Read complete lines of a growing file; a half-written last line waits for its rest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[Event]:
        """Yield the events written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        complete = data.rfind(b"\n") + 1
        self._offset += complete
        for line in data[:complete].splitlines():
            try:
                yield Event.model_validate(json.loads(line))
            except (json.JSONDecodeError, ValidationError):
                # A line of another kind is somebody else's; the verdict comes from Ansible's exit
                # code and the stats, never from a line we could not read.
                continue
