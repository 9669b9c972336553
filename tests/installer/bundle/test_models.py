from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from bundle_parts import make_model

from holdfast_installer.bundle.lockfile import ModelSource
from holdfast_installer.bundle.models import lock_model
from holdfast_installer.bundle.store import Store
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.bundle.manifest import Artifact


def lock_folder(folder: Path, cache: Path) -> list[Artifact]:
    return lock_model(ModelSource(id="made/up", source=str(folder)), Store(cache))


def git(folder: Path, *arguments: str, **more: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **more},
    ).stdout.strip()


def test_a_folders_commit_is_the_one_git_would_make(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    (model / "nested.txt").write_text("sorts between nested/ and nested0 in git's order")
    (model / "nested0").write_text("")
    artifacts = lock_folder(model, tmp_path / "cache")
    checkout = tmp_path / "checkout"
    shutil.copytree(model, checkout)
    [weights] = [each for each in artifacts if each.filename == "model.safetensors"]
    (checkout / "model.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid {weights.digest}\nsize {weights.size}\n"
    )
    git(checkout, "init", "-q")
    git(checkout, "add", "-A")
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in {
            "NAME": "Holdfast bundle",
            "EMAIL": "bundle@holdfast.invalid",
            "DATE": "@0 +0000",
        }.items()
    }
    git(checkout, "commit", "-q", "-m", "Collected", **who)
    assert {each.version for each in artifacts} == {git(checkout, "rev-parse", "HEAD")}
    for each in artifacts:
        expected = "" if each is weights else git(checkout, "rev-parse", f"HEAD:{each.filename}")
        assert each.git_oid == expected, each.filename


def test_the_same_folder_gives_the_same_pins_and_a_changed_one_others(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    first = lock_folder(model, tmp_path / "cache")
    os.utime(model / "config.json", (0, 0))
    assert lock_folder(model, tmp_path / "other") == first
    (model / "config.json").write_text("{}")
    assert lock_folder(model, tmp_path / "cache")[0].version != first[0].version


def test_the_licence_comes_from_the_model_card(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    assert {each.licence for each in lock_folder(model, tmp_path / "cache")} == {"apache-2.0"}
    (model / "README.md").write_text("no front matter")
    assert {each.licence for each in lock_folder(model, tmp_path / "cache")} == {"not stated"}


def test_what_git_and_python_leave_behind_is_not_part_of_a_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    before = lock_folder(model, tmp_path / "cache")
    for left in (".git", ".cache/huggingface", "__pycache__"):
        (model / left).mkdir(parents=True)
        (model / left / "file").write_text("x")
    assert lock_folder(model, tmp_path / "cache") == before


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.mkdir()])
def test_a_missing_or_empty_folder_is_named(tmp_path: Path, make: object) -> None:
    make(tmp_path / "model")  # type: ignore[operator]  # a parametrised callable
    with pytest.raises(HoldfastError, match="made/up") as refusal:
        lock_folder(tmp_path / "model", tmp_path / "cache")
    assert refusal.value.where == str(tmp_path / "model")
