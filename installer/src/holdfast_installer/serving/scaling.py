"""How many replicas a model should have, from its load: a pure decision, slow to take back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from holdfast_installer.serving.signals import Load

if TYPE_CHECKING:
    from pathlib import Path

HISTORY = "scale.jsonl"
# Below this mean nobody waits: a request that is read once in the queue raises it that far.
IDLE_QUEUE = 0.05
# The load is calm when one replica fewer would still have this share of each limit.
CALM = 0.5
RUSH = 4


class Limits(BaseModel):
    """When to add and when to take away; what `holdfast scale --auto` is told."""

    model_config = ConfigDict(frozen=True)

    least: int = Field(1, ge=1)
    most: int = Field(4, ge=1)
    queue: float = Field(2.0, gt=0, description="Waiting requests a replica.")
    ttft_seconds: float = Field(2.0, gt=0, description="p95 of the time to a first token.")
    busy: float = Field(8.0, gt=0, description="Running requests that a replica takes with ease.")
    pause_up_seconds: int = Field(120, ge=0)
    pause_down_seconds: int = Field(900, ge=0)


class Decision(BaseModel):
    """What to do about a model, and why."""

    model_config = ConfigDict(frozen=True)

    model: str
    before: int
    after: int
    why: str
    load: Load


class Change(BaseModel):
    """A line of the history: when a model's replicas changed."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    model: str
    before: int
    after: int
    why: str
    operator: str


def decide(load: Load, now: int, limits: Limits, *, quiet_seconds: float | None) -> Decision:
    """Return how many replicas there should be.

    `quiet_seconds` is how long ago the number last changed, None where it never did.
    """
    wanted, why = _wanted(load, now, limits)
    pause = limits.pause_up_seconds if wanted > now else limits.pause_down_seconds
    inside = limits.least <= now <= limits.most
    if wanted != now and inside and quiet_seconds is not None and quiet_seconds < pause:
        why = f"{why}; left at {now}: it changed {quiet_seconds:.0f} s ago, {pause} s have to pass"
        wanted = now
    return Decision(model=load.model, before=now, after=wanted, why=why, load=load)


def _wanted(load: Load, now: int, limits: Limits) -> tuple[int, str]:
    if now < limits.least:
        return limits.least, f"at least {limits.least} are asked for"
    if now > limits.most:
        return limits.most, f"at most {limits.most} are allowed"
    ttft = load.ttft_seconds
    waiting = load.waiting / now
    more = []
    if waiting > limits.queue:
        more.append(f"{waiting:.1f} requests wait for each replica, over {limits.queue:g}")
    if ttft is not None and ttft > limits.ttft_seconds:
        more.append(f"p95 TTFT is {ttft:.2f} s, over {limits.ttft_seconds:g} s")
    if more:
        step = now if waiting > RUSH * limits.queue else 1
        wanted = min(now + step, limits.most)
        full = f"; {limits.most} are the most allowed" if wanted == now else ""
        return wanted, " and ".join(more) + full
    fewer = now - 1
    calm = (
        load.waiting < IDLE_QUEUE
        and load.running <= CALM * limits.busy * fewer
        and (ttft is None or ttft <= CALM * limits.ttft_seconds)
    )
    if calm and fewer >= limits.least:
        return fewer, f"nobody waits, and {fewer} would have {load.running:.1f} requests to run"
    return now, "the load is within the limits"


def history(journal: Path) -> list[Change]:
    """Return the changes so far, oldest first; half a line at the end is none."""
    path = journal / HISTORY
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Change.model_validate_json(line) for line in lines if line]


def quiet_since(changes: list[Change], model: str) -> float | None:
    """Return how many seconds ago a model's number last changed."""
    times = [one.at for one in changes if one.model == model]
    return (datetime.now(UTC) - max(times)).total_seconds() if times else None


def note(journal: Path, change: Change) -> None:
    """Add a line to the history."""
    journal.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (journal / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(change.model_dump(mode="json")) + "\n")
