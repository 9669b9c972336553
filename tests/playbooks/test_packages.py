"""What the packages module remembers of an installation that a power cut ended."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible_collections.holdfast.platform.plugins.modules import packages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packages, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(packages, "UNSETTLED", tmp_path / "unsettled")
    monkeypatch.setattr(packages, "BOOT", tmp_path / "boot")
    (tmp_path / "boot").write_text("first\n")
    return tmp_path


def test_a_first_installation_finds_nothing_spoiled(host: Path) -> None:
    assert packages.begin({"base-files"}) == []
    assert json.loads((host / "unsettled").read_text()) == {
        "boot": "first",
        "there": ["base-files"],
    }


def test_a_killed_one_goes_on_and_remembers_how_it_began(host: Path) -> None:
    packages.begin({"base-files"})
    assert packages.begin({"base-files", "nginx"}) == []
    (host / "boot").write_text("second\n")
    assert packages.begin({"base-files", "nginx", "unbound"}) == ["nginx", "unbound"]


def test_what_a_second_power_cut_spoils_is_still_known(host: Path) -> None:
    packages.begin({"base-files"})
    for boot in ("second", "third"):
        (host / "boot").write_text(boot)
        assert packages.begin({"base-files", "nginx"}) == ["nginx"]


def test_a_note_that_was_cut_off_itself_spoils_everything(host: Path) -> None:
    (host / "unsettled").write_text("")
    assert packages.begin({"base-files", "nginx"}) == ["base-files", "nginx"]


def test_what_is_settled_is_not_asked_about_again(host: Path) -> None:
    packages.begin({"base-files"})
    packages.settle("abc")
    assert (host / "stamp").read_text() == "abc\n"
    (host / "boot").write_text("second\n")
    assert packages.begin({"base-files", "nginx"}) == []
