"""`holdfast lab` where it cannot do what it is asked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import cluster, machine
from holdfast_installer.lab.command import lab

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    return tmp_path


def failure(*words: str) -> HoldfastError:
    result = CliRunner().invoke(lab, words)
    assert isinstance(result.exception, HoldfastError), result.output
    return result.exception


def test_without_root_up_names_the_command_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    problem = failure("up")
    assert "root" in problem.problem
    assert problem.next_command.startswith("sudo holdfast")


def test_without_the_tools_up_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("holdfast_installer.lab.processes.search_path", lambda: str(tmp_path))
    problem = failure("up")
    assert problem.next_command == "apt-get install " + " ".join(
        sorted(set(machine._NEEDED.values()))
    )


def test_status_of_no_lab_is_an_empty_list() -> None:
    result = CliRunner().invoke(lab, ["status", "--json"])
    assert (result.exit_code, result.stdout) == (0, "[]\n")


@pytest.mark.parametrize("words", [("status", "--name", "x"), ("exec", "--name", "x", "a", "b")])
def test_a_lab_that_is_not_there_is_told(words: tuple[str, ...]) -> None:
    assert failure(*words).next_command == "holdfast lab up --name x"


def test_a_name_that_escapes_the_folder_is_refused(state: Path) -> None:
    for action in ("up", "down", "status"):
        problem = failure(action, "--name", "../x")
        assert problem.exit_code == 2
    assert cluster.names() == []
    assert list(state.iterdir()) == []


def test_without_root_there_is_nothing_to_take_down_where_no_lab_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(lab, ["down", "--name", "nothere", "--json"])
    assert result.exit_code == 0, result.output


def test_without_root_a_lab_that_is_there_is_not_taken_down(
    monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    (state / "lab/there").mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert failure("down", "--name", "there").next_command == "sudo holdfast lab down --name there"
