from __future__ import annotations

import json
import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest
from gateway_parts import until
from metering_parts import closing, opening, row
from sqlalchemy.exc import DataError, OperationalError

from holdfast_gateway.metering import recorder as module
from holdfast_gateway.metering.journal import Journal
from holdfast_gateway.metering.recorder import Event, Item, Recorder
from holdfast_gateway.metering.reports import Question, sums
from holdfast_gateway.metering.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast_gateway.metering.usage import UsageRow, UsageStore


def items(count: int) -> list[Item]:
    return [Item({"request_id": f"r{at}"}, row(f"r{at}")) for at in range(count)]


def written(store: UsageStore) -> int:
    with store.engine.connect() as connection:
        return sum(each.requests for each in sums(connection, Question()))


class Unsteady:
    """A database that fails the first times, before or after it has written."""

    def __init__(self, store: UsageStore, failures: int, *, after_commit: bool) -> None:
        self.store = store
        self.failures = failures
        self.after_commit = after_commit

    def insert(self, rows: Sequence[UsageRow]) -> None:
        if self.failures and not self.after_commit:
            self.failures -= 1
            raise OperationalError("INSERT", {}, Exception("away"))
        self.store.insert(rows)
        if self.failures:
            self.failures -= 1
            raise OperationalError("INSERT", {}, Exception("away"))

    def known(self, request_ids: Sequence[str]) -> set[str]:
        return self.store.known(request_ids)


class Events:
    """A ledger that takes nothing the first times, and then one event at a time."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.taken: list[Event] = []

    def append(self, events: Sequence[Event]) -> list[Event]:
        if self.failures:
            self.failures -= 1
            return list(events)
        self.taken.append(events[0])
        return list(events[1:])


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)


@pytest.mark.parametrize("after_commit", [True, False])
def test_each_is_written_once_however_the_database_fails(
    store: UsageStore, *, after_commit: bool
) -> None:
    events = Events(failures=2)
    recorder = Recorder(Unsteady(store, 3, after_commit=after_commit), events, 100)
    for item in items(50):
        recorder.put(item)
    recorder.close(10)
    assert written(store) == 50
    assert [event["request_id"] for event in events.taken] == [f"r{at}" for at in range(50)]


def test_full_until_it_is_written(store: UsageStore) -> None:
    gate = threading.Event()

    class Blocked:
        def insert(self, rows: Sequence[UsageRow]) -> None:
            gate.wait(10)
            store.insert(rows)

        def known(self, request_ids: Sequence[str]) -> set[str]:
            return store.known(request_ids)

    recorder = Recorder(Blocked(), Events(), backlog=3)
    for at, item in enumerate(items(3)):
        assert not recorder.full, at
        recorder.put(item)
    assert recorder.full
    gate.set()
    until(lambda: not recorder.full)
    recorder.close(10)


def test_what_cannot_be_written_in_time_is_in_the_log(
    store: UsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(Unsteady(store, 10**9, after_commit=False), Events(10**9), 100)
    recorder.put(items(1)[0])
    with caplog.at_level(logging.ERROR):
        recorder.close(0.05)
    assert "usage row not written: {" in caplog.text
    assert "ledger event not written: {" in caplog.text


def test_a_ledger_that_broke_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "ledger")
    assert journal.append([{"n": 1}]) == []

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        assert journal.append([{"n": 2}]) == [{"n": 2}]
    assert journal.append([{"n": 2}, {"n": 3}]) == []
    journal.close()
    lines = (tmp_path / "ledger" / "entries.jsonl").read_text().splitlines()
    # Whether what a failed sync left is on the disk cannot be known: it may be there twice.
    assert [json.loads(line)["event"]["n"] for line in lines] in ([1, 2, 3], [1, 2, 2, 3])
    assert "No space left" in caplog.text


def test_the_spool_keeps_what_could_not_be_written(store: UsageStore, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "pending")
    recorder = Recorder(store, Events(10**9), 100, spool=spool)
    ticket = spool.begin(opening())
    spool.end(ticket, closing())
    recorder.put(Item({"n": 1}, row("r0"), ticket))
    recorder.close(0.05)
    assert written(store) == 1  # the row is there, its event is not
    again = Spool(tmp_path / "pending")
    assert [(each.opening, each.closing) for each in again.recover()] == [(opening(), closing())]
    again.close()


def test_what_was_written_leaves_the_spool(store: UsageStore, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "pending")
    recorder = Recorder(store, Events(), 100, spool=spool)
    for at in range(20):
        ticket = spool.begin(opening(at))
        spool.end(ticket, closing())
        recorder.put(Item({"n": at}, row(f"r{at}"), ticket))
    recorder.close(10)
    assert list((tmp_path / "pending").iterdir()) == []


def test_a_row_that_the_database_will_never_take_holds_up_no_other(
    store: UsageStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Strict:
        def insert(self, rows: Sequence[UsageRow]) -> None:
            if any(row.request_id == "r3" for row in rows):
                raise DataError("INSERT", {}, Exception("value too long"))
            store.insert(rows)

        def known(self, request_ids: Sequence[str]) -> set[str]:
            return store.known(request_ids)

    events = Events()
    recorder = Recorder(Strict(), events, 100)
    for item in items(8):
        recorder.put(item)
    recorder.close(10)
    assert written(store) == 7
    assert len(events.taken) == 8
    assert 'usage row refused: value too long: {"request_id": "r3"' in caplog.text
