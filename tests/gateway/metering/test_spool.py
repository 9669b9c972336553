"""What was begun and what ended survives a process that is killed."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metering_parts import closing, opening

from holdfast_gateway.metering import spool as module
from holdfast_gateway.metering.record import LOST
from holdfast_gateway.metering.spool import Spool

if TYPE_CHECKING:
    import pytest

# Three are begun, one has ended, one is written; then the process is killed as by kill -9.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {parts!r})
from metering_parts import closing, opening
from holdfast_gateway.metering.spool import Spool
spool = Spool(Path({folder!r}))
first, second, third = (spool.begin(opening(at)) for at in range(3))
spool.end(first, closing())
spool.end(third, closing(completion_tokens=9))
spool.written([first])
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(folder: Path) -> None:
    script = KILLED.format(parts=str(Path(__file__).parent.parent), folder=str(folder))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9


def test_a_killed_process_leaves_what_was_not_written(tmp_path: Path) -> None:
    killed(tmp_path)
    spool = Spool(tmp_path)
    left = spool.recover()
    assert [(each.opening, each.closing) for each in left] == [
        (opening(1), LOST),
        (opening(2), closing(completion_tokens=9)),
    ]
    # Until that is written it stays for the next one, too.
    spool.written([left[0].ticket])
    assert len(list(tmp_path.iterdir())) == 2
    spool.written([left[1].ticket])
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_killed_again_before_it_was_written_loses_nothing(tmp_path: Path) -> None:
    killed(tmp_path)
    first = Spool(tmp_path)
    left = first.recover()
    first.written([left[0].ticket])
    first.close()  # as if it ended with the database away
    again = Spool(tmp_path)
    assert [each.opening for each in again.recover()] == [opening(2)]
    again.close()


def test_the_files_of_one_that_lives_are_left_alone(tmp_path: Path) -> None:
    living = Spool(tmp_path)
    living.begin(opening())
    other = Spool(tmp_path)
    assert other.recover() == []
    other.close()
    living.close()
    assert len(list(tmp_path.iterdir())) == 1  # what it had begun


def test_full_files_go_when_all_in_them_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 2000)
    spool = Spool(tmp_path)
    tickets = [spool.begin(opening(at)) for at in range(50)]
    assert len(list(tmp_path.iterdir())) > 3
    for ticket in tickets:
        spool.end(ticket, closing())
    spool.written(tickets[1:])
    assert len(list(tmp_path.iterdir())) == 2  # that of the first, and the one in use
    spool.written(tickets[:1])
    assert len(list(tmp_path.iterdir())) == 1
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_spoils_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path)
    spool.begin(opening(0))
    spool.begin(opening(1))
    spool.close()
    (file,) = tmp_path.iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:-40] + b"\n" + lines[2] + b'[2,"b",["req')
    again = Spool(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [each.opening for each in again.recover()] == [opening(1)]
    assert caplog.text.count("torn line") == 2
    again.close()


def test_a_full_disk_is_said_once_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda _descriptor, data: len(data) // 2)
        tickets = [spool.begin(opening(at)) for at in range(3)]
    assert caplog.text.count("No space left") == 1
    spool.end(tickets[0], closing())
    spool.written(tickets)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_made_the_old_one_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_SEGMENT_BYTES", 0)
    spool = Spool(tmp_path)

    def refuse(_path: Path) -> module.Segment:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(module, "Segment", refuse)
        tickets = [spool.begin(opening(at)) for at in range(3)]
    assert "Too many open files" in caplog.text
    assert len(list(tmp_path.iterdir())) == 1
    spool.written(tickets)
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fills_up_while_the_recorder_looks(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    class Looked(module.Segment):
        @property
        def finished(self) -> int:
            spool._full.append(other)  # as the event loop does
            return -1

        @finished.setter
        def finished(self, _value: int) -> None:
            pass

    other = module.Segment(tmp_path / "1-1.jsonl")
    spool._full.append(Looked(tmp_path / "1-0.jsonl"))
    spool.written([spool.begin(opening())])
    assert list(spool._full)[1:] == [other]
    spool._full.clear()
    spool.close()


def test_a_predecessor_that_ends_while_its_files_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    listed = Path.glob
    gone = tmp_path / "1-0.jsonl"
    monkeypatch.setattr(Path, "glob", lambda *what: [*listed(*what), gone])
    assert spool.recover() == []
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_understood_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "1-0.jsonl").write_text(json.dumps({"format": 99}) + "\n")
    spool = Spool(tmp_path)
    assert spool.recover() == []
    assert (tmp_path / "1-0.unread").exists()
    assert "format 99" in caplog.text
    spool.close()


def test_a_file_that_another_took_away_before_it_was_locked_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = module._lock
    seen: list[Path] = []

    def late(segment: module.Segment) -> bool:
        if not seen:
            segment.path.unlink()
        seen.append(segment.path)
        return lock(segment)

    monkeypatch.setattr(module, "_lock", late)
    spool = Spool(tmp_path)
    assert len(seen) == 2
    assert list(tmp_path.iterdir()) == seen[1:]
    spool.close()


def test_a_file_of_a_dead_process_with_our_number_is_read_not_filled(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.begin(opening())
    first.close()
    again = Spool(tmp_path)  # in the same process: the same number
    assert [each.opening for each in again.recover()] == [opening()]
    again.close()
