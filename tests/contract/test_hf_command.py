"""The `hf` command of three versions against the registry, as people type it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from client_environment import NEWEST, interpreter
from registry_parts import ADA, BOB, files_of, make_model, run_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from registry_parts import Registry

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

SEED: dict[str, Any] = {
    "jurisdiction": "de",
    "teams": ["research", "elsewhere"],
    "users": [
        {"name": "ada", "teams": {"research": "admin"}, "tokens": [{"name": "x", "secret": ADA}]},
        {"name": "bob", "teams": {"elsewhere": "admin"}, "tokens": [{"name": "x", "secret": BOB}]},
    ],
}
# The group has had two names.
REPOSITORIES = {NEWEST: "repos", "hub-1.19": "repos", "hub-0.36": "repo"}


@dataclass(frozen=True)
class Person:
    """Somebody at a shell, whose HF_ENDPOINT and HF_TOKEN are set."""

    client: str
    registry: Registry
    home: Path
    token: str = ADA

    def types(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `hf` to its end."""
        return subprocess.run(
            [str(interpreter(self.client).with_name("hf")), *map(str, arguments)],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "HF_HOME": str(self.home / "hf"),
                "HF_ENDPOINT": self.registry.url,
                "HF_TOKEN": self.token,
                "NO_PROXY": "127.0.0.1",
            },
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
        )

    def does(self, *arguments: str | Path) -> str:
        """Run `hf`, expect success, and return what it prints."""
        done = self.types(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with run_registry(tmp_path_factory.mktemp("hf"), seed=SEED) as running:
        yield running


@pytest.fixture(params=[NEWEST, "hub-1.19", "hub-0.36"])
def ada(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Person:
    return Person(request.param, registry, tmp_path)


def test_from_nothing_to_a_copy_elsewhere(ada: Person, tmp_path: Path) -> None:
    name = f"research/by-hand-{ada.client.replace('.', '-')}"
    group = REPOSITORIES[ada.client]
    assert "ada" in ada.does("auth", "whoami")
    # Older versions ask for a public one unless they are told.
    ada.does(group, "create", name, "--private")
    model = make_model(tmp_path / "model")
    said = ada.does("upload", name, model, ".", "--commit-message", "By hand")
    assert re.search(rf"{re.escape(ada.registry.url)}/{name}/(commit|tree)/", said), said
    ada.does("download", name, "--local-dir", tmp_path / "out")
    found = files_of(tmp_path / "out")
    del found[".gitattributes"]
    assert found == files_of(model)
    (tmp_path / "more.txt").write_text("more")
    ada.does("upload", name, tmp_path / "more.txt", "notes/more.txt", "--revision", "other")
    ada.does("download", name, "notes/more.txt", "--revision", "other", "--local-dir", tmp_path)
    assert (tmp_path / "notes" / "more.txt").read_text() == "more"
    ada.does(group, "tag", "create", name, "v1")
    assert "v1" in ada.does(group, "tag", "list", name)
    again = ada.does("download", name, "config.json", "--revision", "v1")
    assert "config.json" in again
    bob = Person(ada.client, ada.registry, tmp_path / "bob", BOB)
    bob.home.mkdir()
    stranger = bob.types("download", name)
    assert stranger.returncode != 0
    assert "not found" in (stranger.stdout + stranger.stderr).lower()
    if ada.client == "hub-0.36":  # it cannot delete
        return
    ada.does(group, "delete", name, "--yes")
    # `hf` itself would find it in its cache still.
    assert ada.registry.request(f"/api/models/{name}")[0] == 404


def test_upload_makes_the_repository_and_the_pull_request(ada: Person, tmp_path: Path) -> None:
    name = f"research/made-{ada.client.replace('.', '-')}"
    (tmp_path / "notes.txt").write_text("first")
    ada.does("upload", name, tmp_path / "notes.txt", "--private")
    (tmp_path / "notes.txt").write_text("second")
    ada.does("upload", name, tmp_path / "notes.txt", "--create-pr")
    ada.does("download", name, "notes.txt", "--revision", "refs/pr/1", "--local-dir", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "second"
    ada.does("download", name, "notes.txt", "--local-dir", tmp_path / "main")
    assert (tmp_path / "main" / "notes.txt").read_text() == "first"


def test_the_newest_one_looks_around(registry: Registry, tmp_path: Path) -> None:
    ada = Person(NEWEST, registry, tmp_path)
    name = "research/seen"
    ada.does("upload", name, make_model(tmp_path / "model"), ".")
    assert name in ada.does("models", "ls", "--author", "research", "--no-truncate")
    assert "model.safetensors" in ada.does("models", "ls", name)
    assert "apache-2.0" in ada.does("models", "info", name)
    assert "# Tiny" in ada.does("models", "card", name)
    ada.does("discussions", "create", name, "--title", "A question")
    assert "A question" in ada.does("discussions", "list", name, "--no-truncate")
    ada.does("repos", "branch", "create", name, "other")
    ada.does("repos", "settings", name, "--gated", "manual")
    ada.does("repos", "move", name, f"{name}-moved")
    ada.does("repos", "delete-files", f"{name}-moved", "empty.txt")
    assert "empty.txt" not in ada.does("models", "ls", f"{name}-moved")
    copied = f"hf://{name}-moved/config.json"
    ada.does("cp", copied, tmp_path / "copied.json")
    assert (tmp_path / "copied.json").read_bytes() == (
        tmp_path / "model" / "config.json"
    ).read_bytes()
