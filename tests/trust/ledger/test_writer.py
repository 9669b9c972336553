from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger, read, verify
from holdfast_trust.ledger.files import LONGEST_EVENT_BYTES
from holdfast_trust.ledger.merkle import leaf_hash

if TYPE_CHECKING:
    from pathlib import Path


def test_an_entry_is_canonical_numbered_and_dated(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger:
        entry = ledger.append({"z": 1, "action": "tést", "a": [True, None, 1.0]})
        (line,) = (tmp_path / "l/entries.jsonl").read_bytes().splitlines()
    assert line == rfc8785.dumps(json.loads(line))
    assert (entry.index, entry.leaf_hash) == (0, leaf_hash(line))
    (found,) = read(tmp_path / "l")
    assert found["event"] == {"z": 1, "action": "tést", "a": [True, None, 1]}
    assert found["time"] == entry.time


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=6))
def test_any_json_is_kept_and_verified(
    events: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger(folder) as ledger:
        for event in events:
            try:
                ledger.append(event)
            except TrustError:  # a lone surrogate is not JSON
                assert any(0xD800 <= ord(char) <= 0xDFFF for char in str(event)) or "\\ud" in repr(
                    event
                )
    report = verify(folder)
    assert report.ok
    assert report.covered == report.entries == len(list(read(folder)))


@pytest.mark.parametrize("event", [{"a": object()}, {"a": float("nan")}, {1: "a"}, {"a": 2**60}])
def test_what_is_not_json_is_refused_and_nothing_written(
    tmp_path: Path, event: dict[str, object]
) -> None:
    with Ledger(tmp_path) as ledger:
        with pytest.raises(TrustError, match="cannot be put on the ledger"):
            ledger.append(event)
        assert ledger.append({"action": "after"}).index == 0


def test_bodies_are_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, pytest.raises(TrustError, match="too long"):
        ledger.append({"body": "x" * LONGEST_EVENT_BYTES})


def test_threads_and_tasks_share_syncs_and_lose_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        indexes: list[int] = []

        def work(thread: int) -> None:
            indexes.extend(ledger.append({"thread": thread, "n": n}).index for n in range(20))

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(indexes) == list(range(320))
        threaded = ledger.commits

        async def tasks() -> list[int]:
            handed = [ledger.append_async({"task": task}) for task in range(500)]
            return [entry.index for entry in await asyncio.gather(*handed)]

        assert asyncio.run(tasks()) == list(range(320, 820))
        assert threaded < 320
        assert ledger.commits - threaded < 100
    assert verify(tmp_path).entries == 820


def test_a_cancelled_task_leaves_the_others_alone(tmp_path: Path) -> None:
    async def tasks(ledger: Ledger) -> None:
        given_up = asyncio.ensure_future(ledger.append_async({"n": 0}))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(*(ledger.append_async({"n": n}) for n in range(1, 20)))

    with Ledger(tmp_path) as ledger:
        asyncio.run(tasks(ledger))
    assert {record["event"]["n"] for record in read(tmp_path)} >= set(range(1, 20))
    assert verify(tmp_path).ok


_PROCESS = """
import sys
from holdfast_trust.ledger import Ledger
with Ledger(sys.argv[1], checkpoint_seconds=0.01) as ledger:
    for n in range(50):
        ledger.append({"process": sys.argv[2], "n": n})
"""


def test_processes_take_turns(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", _PROCESS, str(tmp_path), str(number)])
        for number in range(4)
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    report = verify(tmp_path)
    assert (report.ok, report.entries, report.covered) == (True, 200, 200)
    for number in range(4):
        mine = [r["event"]["n"] for r in read(tmp_path) if r["event"]["process"] == str(number)]
        assert mine == list(range(50))


def test_an_idle_ledger_signs_what_it_has(tmp_path: Path) -> None:
    with Ledger(tmp_path, checkpoint_seconds=0.1) as ledger:
        ledger.append({"n": 1})
        ledger.append({"n": 2})
        deadline = time.monotonic() + 5
        while verify(tmp_path).covered < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        report = verify(tmp_path)
        assert report.covered == 2
        signed = report.checkpoints
        time.sleep(0.3)
        assert verify(tmp_path).checkpoints == signed


def test_opening_is_quick_because_the_frontier_is_kept(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for future in [ledger.submit({"n": n}) for n in range(3000)]:
            future.result()
        root = ledger.checkpoint().root
    state = json.loads((tmp_path / "state.json").read_bytes())
    assert state["size"] == 3000
    assert len(state["peaks"]) == (3000).bit_count()
    (tmp_path / "state.json").write_text("lost half of it {")
    with Ledger(tmp_path) as ledger:
        assert ledger.checkpoint().root == root
        assert ledger.append({"n": 3000}).index == 3000


@pytest.mark.parametrize("tail", [b"{", b'{"event":{"a":1},"index":3,"time":"x"}', b"\0" * 5000])
def test_a_write_that_never_ended_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(3):
            ledger.append({"n": n})
    with (tmp_path / "entries.jsonl").open("ab") as file:
        file.write(tail)
    report = verify(tmp_path)
    assert report.ok
    assert [each.name for each in report.findings if each.name == "torn"] == ["torn"]
    with Ledger(tmp_path) as ledger:
        assert ledger.append({"n": 3}).index == 3
    assert (verify(tmp_path).ok, verify(tmp_path).entries) == (True, 4)


def test_every_byte_of_an_unconfirmed_write_can_be_the_last(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with Ledger(whole) as ledger:
        ledger.append({"n": 0})
    kept = {file.name: file.read_bytes() for file in whole.iterdir()}
    with Ledger(whole) as ledger:
        ledger.append({"n": 1, "text": "…"})
    added = (whole / "entries.jsonl").read_bytes()[len(kept["entries.jsonl"]) :]
    for cut in range(len(added)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        for name, data in kept.items():
            (folder / name).write_bytes(data)
        with (folder / "entries.jsonl").open("ab") as file:
            file.write(added[:cut])
        with Ledger(folder) as ledger:
            assert ledger.append({"n": "again"}).index == 1
        assert [record["event"]["n"] for record in read(folder)] == [0, "again"]
        assert verify(folder).ok


def test_every_byte_of_a_checkpoint_can_be_the_last(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append({"n": 0})
    path = tmp_path / "checkpoints.jsonl"
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in range(second, len(whole)):
        path.write_bytes(whole[:cut])
        with Ledger(tmp_path) as ledger:
            ledger.checkpoint()
        report = verify(tmp_path)
        assert (report.ok, report.checkpoints, report.covered) == (True, 2, 1)


def test_a_full_disk_refuses_the_event_and_later_ones_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 20:
            return write(descriptor, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Ledger(tmp_path) as ledger:
        ledger.append({"n": 0})
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(TrustError, match="could not be written") as caught:
                ledger.append({"n": "lost"})
            assert "No space left" in str(caught.value)
        assert ledger.append({"n": 1}).index == 1
    assert [record["event"]["n"] for record in read(tmp_path)] == [0, 1]
    assert verify(tmp_path).ok


def test_nothing_is_confirmed_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    ledger = Ledger(tmp_path)
    ledger.append({"n": 0})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(TrustError, match="could not be written"):
            ledger.append({"n": 1})
    with pytest.raises(TrustError, match="could not be written"):
        ledger.append({"n": 2})
    ledger.close()
    with Ledger(tmp_path) as again:
        again.append({"n": 3})
    assert [record["event"]["n"] for record in read(tmp_path)][-1] == 3
    assert verify(tmp_path).ok


def test_a_closed_ledger_takes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append({"n": 0})
    ledger.close()
    ledger.close()
    with pytest.raises(TrustError, match="closed"):
        ledger.append({"n": 1})


@pytest.mark.parametrize(
    ("lost", "said"), [("key", "no signing key"), ("checkpoints.jsonl", "checkpoints are gone")]
)
def test_a_ledger_that_lost_its_anchors_is_not_continued(
    tmp_path: Path, lost: str, said: str
) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.append({"n": 0})
    (tmp_path / lost).unlink()
    with pytest.raises(TrustError, match=said):
        Ledger(tmp_path)


def test_a_shortened_or_damaged_ledger_is_not_continued(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(5):
            ledger.append({"n": n})
    path = tmp_path / "entries.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(TrustError, match="shorter than it was"):
        Ledger(tmp_path)
    path.write_bytes(whole + b"garbage\n")
    with pytest.raises(TrustError, match="entry 5 of the ledger is damaged"):
        Ledger(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrustError, match="cannot be opened") as caught:
        Ledger(tmp_path / "file" / "ledger")
    assert str(tmp_path) in str(caught.value)
