from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.converge.journal import Journal, previous

if TYPE_CHECKING:
    from pathlib import Path


def begin(root: Path) -> Journal:
    return Journal.begin(root, site="s", bundle="sha256:00", operator="o")


def test_an_apply_that_never_ended_reads_as_running(tmp_path: Path) -> None:
    begin(tmp_path)
    found = previous(tmp_path, "s")
    assert found is not None
    assert found.record.outcome == "running"


def test_the_newest_apply_is_the_previous_one(tmp_path: Path) -> None:
    begin(tmp_path).end("failed", changed={"a": 1}, failed_hosts={"a": "why"})
    begin(tmp_path).end("done", changed={"a": 2}, failed_hosts={})
    found = previous(tmp_path, "s")
    assert found is not None
    assert found.record.outcome == "done"
    assert found.record.changed == {"a": 2}
    assert found.record.ended_at is not None


def test_a_torn_record_is_passed_over(tmp_path: Path) -> None:
    begin(tmp_path).end("done", changed={}, failed_hosts={})
    torn = begin(tmp_path)
    (torn.folder / "record.json").write_text('{"site": "s"')
    found = previous(tmp_path, "s")
    assert found is not None
    assert found.record.outcome == "done"


def test_without_a_journal_there_is_no_previous(tmp_path: Path) -> None:
    assert previous(tmp_path / "none", "s") is None


def test_scratch_goes_when_the_apply_ends(tmp_path: Path) -> None:
    journal = begin(tmp_path)
    journal.scratch.mkdir()
    (journal.scratch / "secret").write_text("hft_x")
    journal.end("interrupted", changed={}, failed_hosts={})
    assert not journal.scratch.exists()


def test_another_sites_apply_is_not_ours(tmp_path: Path) -> None:
    begin(tmp_path)
    assert previous(tmp_path, "another") is None


def test_a_journal_is_its_operators_alone(tmp_path: Path) -> None:
    assert begin(tmp_path).folder.stat().st_mode & 0o077 == 0
