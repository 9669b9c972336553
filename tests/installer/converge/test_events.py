from __future__ import annotations

import json
from typing import TYPE_CHECKING

from holdfast_installer.converge.events import EventReader

if TYPE_CHECKING:
    from pathlib import Path


def line(**fields: object) -> str:
    return json.dumps({"time": 1.5, "event": "task", **fields}) + "\n"


def test_a_half_written_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = line(task="one")
    path.write_text(whole + whole[:20])
    reader = EventReader(path)
    assert [event.task for event in reader.read()] == ["one"]
    assert list(reader.read()) == []
    with path.open("a") as file:
        file.write(whole[20:] + line(task="two"))
    assert [event.task for event in reader.read()] == ["one", "two"]


def test_lines_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('not json\n{"event": "weather"}\n[]\n' + line(task="kept"))
    assert [event.task for event in EventReader(path).read()] == ["kept"]


def test_no_file_is_no_event(tmp_path: Path) -> None:
    assert list(EventReader(tmp_path / "absent").read()) == []
