"""When a replica is added and when one is taken away, decided from figures alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.serving import scaling, signals
from holdfast_installer.serving.scaling import Change, Limits, decide
from holdfast_installer.serving.signals import Load, queries, read

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = Limits(least=1, most=4, queue=2, ttft_seconds=2, busy=8)


def load(waiting: float = 0.0, running: float = 1.0, ttft: float | None = 0.2) -> Load:
    return Load(
        model="org/one",
        window_seconds=300,
        readings=20,
        waiting=waiting,
        running=running,
        ttft_seconds=ttft,
    )


@pytest.mark.parametrize(
    ("seen", "now", "wanted", "why"),
    [
        (load(waiting=3.9, running=16), 2, 2, "within"),
        (load(waiting=4.2, running=16), 2, 3, "2.1 requests wait for each replica, over 2"),
        (load(waiting=17, running=16), 2, 4, "wait"),
        (load(ttft=2.1, running=16), 2, 3, "p95 TTFT is 2.10 s, over 2 s"),
        (load(waiting=100), 4, 4, "4 are the most allowed"),
        (load(running=4.0), 2, 1, "nobody waits"),
        (load(running=4.1), 2, 2, "within"),
        (load(running=1, ttft=1.1), 2, 2, "within"),
        (load(running=0, ttft=None), 3, 2, "nobody waits"),
        (load(running=0, waiting=0.1), 3, 3, "within"),
        (load(running=0), 1, 1, "within"),
        (load(), 6, 4, "at most 4"),
    ],
)
def test_the_number_follows_the_load(seen: Load, now: int, wanted: int, why: str) -> None:
    decision = decide(seen, now, LIMITS, quiet_seconds=None)
    assert decision.after == wanted
    assert why in decision.why


def test_the_least_is_kept_whatever_the_load() -> None:
    limits = Limits(least=2, most=4)
    assert decide(load(running=0), 2, limits, quiet_seconds=None).after == 2
    assert decide(load(running=0), 1, limits, quiet_seconds=0).after == 2


def test_a_change_waits_until_the_last_one_had_its_effect() -> None:
    busy, idle = load(waiting=50), load(running=0)
    assert decide(busy, 2, LIMITS, quiet_seconds=119).after == 2
    assert "120 s have to pass" in decide(busy, 2, LIMITS, quiet_seconds=119).why
    assert decide(busy, 2, LIMITS, quiet_seconds=120).after > 2
    assert decide(idle, 2, LIMITS, quiet_seconds=899).after == 2
    assert decide(idle, 2, LIMITS, quiet_seconds=900).after == 1


def test_what_was_taken_away_would_not_be_asked_for_again_at_once() -> None:
    """For no load does one fewer lead to one more: else replicas would come and go."""
    for running in range(40):
        for now in range(2, 5):
            calm = load(running=float(running))
            if decide(calm, now, LIMITS, quiet_seconds=None).after < now:
                assert decide(calm, now - 1, LIMITS, quiet_seconds=None).after <= now - 1


def test_a_window_that_was_not_seen_is_no_idle_model() -> None:
    told: dict[str, float | None] = {
        "readings": 20, "waiting": 0.0, "running": 2.0, "ttft": None, "engine_ttft": 0.5,
    }  # fmt: skip
    assert read("org/one", 300, told).ttft_seconds == 0.5
    assert read("org/one", 300, {**told, "ttft": 3.0}).ttft_seconds == 3.0
    idle = {**told, "engine_ttft": None}
    assert read("org/one", 300, idle).ttft_seconds is None
    assert read("org/one", 300, told).running == 2.0
    for missing in ({"readings": 9.0}, {"readings": None}, {"waiting": None}):
        with pytest.raises(HoldfastError, match="was not seen"):
            read("org/one", 300, {**told, **missing})


def test_a_models_name_cannot_leave_its_place_in_a_query() -> None:
    for query in queries('a"} or vector(9)', 60).values():
        assert '="a\\"} or vector(9)"}' in query
        assert query.count("vector(9)") == query.count('="a\\"} or vector(9)"}')


def test_the_history_tells_how_long_a_model_was_left_alone(tmp_path: Path) -> None:
    assert scaling.history(tmp_path) == []
    for minutes, model in ((90, "org/one"), (60, "org/one"), (5, "org/other")):
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        change = Change(at=at, model=model, before=1, after=2, why="by command", operator="ada")
        scaling.note(tmp_path / "journal", change)
    with (tmp_path / "journal" / scaling.HISTORY).open("a") as file:
        file.write('{"at": "half a li')
    changes = scaling.history(tmp_path / "journal")
    assert len(changes) == 3
    quiet = scaling.quiet_since(changes, "org/one")
    assert quiet is not None
    assert 3590 < quiet < 3610
    assert scaling.quiet_since(changes, "org/none") is None


def test_the_scripts_are_programs() -> None:
    for name in ("prometheus", "compare", "counters"):
        compile(signals.script(name), name, "exec")
