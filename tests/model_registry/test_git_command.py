"""The command export-git: what stock git makes of it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from registry_parts import command
from storage_parts import Shelf

from holdfast_model_registry.storage import Locations
from holdfast_trust.ledger import read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(Locations(tmp_path / "data"))
    made.commit("org/name", {"README.md": b"hello", "deep/er/x.txt": b"x"})
    made.storage.close()
    return made


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_repository_can_be_cloned(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "out.git"
    done = command("export-git", "--data", shelf.locations.data, "Org/Name", folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["id"], told["folder"], told["lfs_files"]) == ("org/name", str(folder), 0)
    git("-C", str(folder), "fsck", "--strict", "--full")
    git("clone", "-q", str(folder), str(tmp_path / "clone"))
    assert (tmp_path / "clone/deep/er/x.txt").read_text() == "x"
    events = [record["event"] for record in read(shelf.locations.ledger_folder)]
    assert [(event["action"], event["model"]) for event in events] == [("model.export", "org/name")]


def test_mistakes_are_said_and_write_nothing(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "out.git"
    for arguments, words in (
        (["org/absent", str(folder)], "there is no model org/absent"),
        (["--kind", "dataset", "org/name", str(folder)], "there is no dataset"),
        (["nonsense", str(folder)], "no repository's name"),
        (["org/name", str(tmp_path)], "there already"),
    ):
        done = command("export-git", "--data", shelf.locations.data, *arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not folder.exists()
    assert list(read(shelf.locations.ledger_folder)) == []
