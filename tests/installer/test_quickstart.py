"""The order of the quickstart's commands and what becomes of their answers.

A stand-in for `holdfast` notes what it is asked; the real way is walked in tests/lab.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from site_parts import DATA

from holdfast_installer import quickstart as module
from holdfast_installer.errors import HoldfastError
from holdfast_installer.quickstart import quickstart

if TYPE_CHECKING:
    from pathlib import Path

STAND_IN = """#!/bin/sh
echo "$*" >> {asked}
case "$*" in
  *"{failing}"*) exit {code} ;;
  up*--json*) echo '{{"token": "hft_x", "seconds": 1.5}}' ;;
esac
"""


class Ended(NamedTuple):
    """How a walk ended: with which problem, and with what on standard output."""

    problem: HoldfastError | None
    stdout: str


class Way:
    """A folder with what earlier stages would have left, and a `holdfast` that does nothing."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capture: pytest.CaptureFixture[str],
    ) -> None:
        self.capture = capture
        self.folder = folder / "quickstart"
        self.folder.mkdir()
        (self.folder / "site.yml").write_text((DATA / "site-example.yml").read_text())
        (self.folder / "token").write_text("hft_secret\n")
        (self.folder / "ca.pem").write_text("PEM")
        self.asked = folder / "asked"
        self.bin = folder / "bin"
        self.bin.mkdir()
        monkeypatch.setattr(sys, "executable", str(self.bin / "python"))
        monkeypatch.setattr(module, "missing_for_lab", list)

    def walk(self, *words: str, failing: str = "nothing at all", code: int = 0) -> Ended:
        stand_in = self.bin / "holdfast"
        stand_in.write_text(STAND_IN.format(asked=self.asked, failing=failing, code=code))
        stand_in.chmod(0o755)
        arguments = ["--folder", str(self.folder), "--model", str(self.folder), "--json", *words]
        problem: HoldfastError | None = None
        try:
            quickstart.main(arguments, standalone_mode=False)
        except HoldfastError as error:
            problem = error
        return Ended(problem, self.capture.readouterr().out)

    @property
    def commands(self) -> list[str]:
        return self.asked.read_text().splitlines()


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Way:
    return Way(tmp_path, monkeypatch, capfd)


def test_the_embedded_form_answers_in_json_too(way: Way) -> None:
    done = way.walk("--local")
    assert done.problem is None
    told = json.loads(done.stdout)
    assert told["token"] == "hft_x"
    assert list(told["stages"])[-1] == "Start everything on loopback"
    assert not any(command.startswith("lab ") for command in way.commands)


def test_the_lab_is_booted_first_and_ends_with_three_commands(way: Way) -> None:
    done = way.walk()
    assert done.problem is None
    told = json.loads(done.stdout)
    assert way.commands[0].startswith("lab up")
    assert told["findings"] == []
    assert all("hft_secret" in told[name] for name in ("hf_download", "curl_chat", "openai_client"))


def test_findings_of_the_audit_are_told_and_the_newcomer_gets_in(way: Way) -> None:
    done = way.walk(failing=" audit ", code=3)
    assert done.problem is not None
    assert done.problem.exit_code == 3
    told = json.loads(done.stdout)
    assert told["findings"] == ["Audit"]
    assert told["token"] == "hft_secret"
    assert any(" token issue " in command for command in way.commands)


def test_a_fact_that_cannot_be_read_is_for_the_plan_to_judge(way: Way) -> None:
    done = way.walk(failing=" survey ", code=3)
    assert done.problem is not None
    assert json.loads(done.stdout)["findings"] == ["Survey the hosts"]
    assert any(" plan " in command for command in way.commands)


@pytest.mark.parametrize(("failing", "code"), [(" apply ", 1), (" apply ", 3), (" audit ", 1)])
def test_anything_else_that_fails_ends_the_way(way: Way, failing: str, code: int) -> None:
    done = way.walk(failing=failing, code=code)
    assert done.problem is not None
    assert done.problem.exit_code == code
    assert failing in way.commands[-1]
    assert done.stdout == ""
