"""What a serving host checks before vLLM starts: real folders, manifests that a registry signs."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_model_registry.commit_manifest import CommitManifest, ManifestFile, statement_of
from holdfast_model_registry.signing_envelope import key_pem, sign
from holdfast_model_registry.signing_key import open_registry_key

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = Path(__file__).parents[2] / (
    "playbooks/ansible_collections/holdfast/platform/roles/vllm/files"
)
COMMIT = "c" * 40
CONTENT = {"config.json": b"{}", "deep/model.safetensors": b"weights" * 1000}


def load() -> Any:
    """Return the script as a module of its own."""
    spec = importlib.util.spec_from_file_location("check_model", FILES / "check_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Host:
    """A host's folders, the script bound to them, and the spec that the role writes."""

    script: Any
    spec: Path
    model: Any
    write_manifest: Callable[..., None]

    def check(self) -> list[str]:
        found: list[str] = self.script.check(self.model)
        return found

    def holds(self) -> list[str]:
        found: list[str] = self.script.holds(self.model)
        return found

    def flip(self, name: str = "deep/model.safetensors") -> Path:
        """Alter one byte of a file that was made read-only, as somebody with the right could."""
        path: Path = self.model.path / name
        path.chmod(0o640)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
        path.chmod(0o440)
        return path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    script = load()
    script.NOTES = tmp_path / "run"
    script.NOTES.mkdir()
    (tmp_path / "registry-data").mkdir()
    key = open_registry_key(tmp_path / "registry-data")
    (tmp_path / "registry.pub").write_text(key_pem(key.trusted.key))
    files = {
        name: {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
        for name, content in CONTENT.items()
    }
    spec = {
        "hub": "https://hub.invalid",
        "model": "org/tiny",
        "commit": COMMIT,
        "path": str(tmp_path / "models/org/tiny" / COMMIT),
        "key": str(tmp_path / "registry.pub"),
        "files": files,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    model = script.Model(spec)

    def write_manifest(commit: str = COMMIT, **altered: str) -> None:
        manifest = CommitManifest(
            kind="model",
            repository="org/tiny",
            commit=commit,
            tree="a" * 40,
            parent=None,
            title="Import",
            message="",
            author="holdfast",
            date=datetime(2026, 1, 1, tzinfo=UTC),
            object=None,
            files=tuple(
                ManifestFile(
                    path=name,
                    size=len(content),
                    sha256=altered.get(name, hashlib.sha256(content).hexdigest()),
                    git_oid=None,
                )
                for name, content in CONTENT.items()
            ),
            signed=datetime(2026, 1, 1, tzinfo=UTC),
        )
        model.manifest.write_text(json.dumps(sign(statement_of(manifest), key.private)))

    for name, content in CONTENT.items():
        path = model.partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_manifest()
    return Host(script, tmp_path / "spec.json", model, write_manifest)


def test_what_was_pulled_gets_its_name_once_every_byte_is_right(host: Host) -> None:
    assert host.holds()[0].startswith("not checked since this host started")
    assert host.check() == []
    assert host.holds() == []
    assert not host.model.partial.exists()
    assert (host.model.path / "deep/model.safetensors").stat().st_mode & 0o777 == 0o440


def test_what_was_pulled_wrong_is_removed_and_pulled_anew(host: Host) -> None:
    (host.model.partial / "config.json").write_text("[]")
    assert "config.json was altered" in host.check()[0]
    assert not host.model.partial.exists()
    assert host.check() == ["it is not here: nothing was pulled"]


def test_a_start_after_a_crash_reads_nothing_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.check() == []
    read: list[Path] = []
    monkeypatch.setattr(host.script, "measured", read.append)
    assert host.check() == []
    assert read == []


def test_every_byte_is_read_again_after_a_boot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.check() == []
    host.model.note.unlink()  # as /run is empty after a boot
    assert host.holds()[0].startswith("not checked since this host started")
    read: list[Path] = []

    def measure(path: Path) -> str:
        read.append(path)
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"

    monkeypatch.setattr(host.script, "measured", measure)
    assert host.check() == []
    assert len(read) == len(CONTENT)


def test_a_flipped_byte_is_seen_by_the_next_start_and_named(host: Host) -> None:
    assert host.check() == []
    path = host.flip()
    assert "changed since it was checked" in host.holds()[0]
    problems = host.check()
    assert len(problems) == 1
    assert problems[0].startswith("deep/model.safetensors was altered: it is sha256:")
    assert host.holds() == problems  # what the server's own log says
    assert path.exists(), "nothing is taken away: somebody may look into it"


def test_times_set_back_do_not_hide_a_flipped_byte(host: Host) -> None:
    assert host.check() == []
    before = (host.model.path / "deep/model.safetensors").stat()
    path = host.flip()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert host.check() != []


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: (path / "config.json").unlink(), "config.json is missing"),
        (lambda path: (path / "modeling_x.py").touch(), "modeling_x.py is not planned"),
        (lambda path: (path / "elsewhere").symlink_to("/etc"), "elsewhere is not planned"),
    ],
)
def test_files_added_taken_away_or_linked(
    host: Host, damage: Callable[[Path], None], why: str
) -> None:
    assert host.check() == []
    damage(host.model.path)
    assert host.check() == [why]


def test_a_file_that_became_a_link_to_the_same_bytes_is_missing(host: Host, tmp_path: Path) -> None:
    assert host.check() == []
    path = host.model.path / "config.json"
    path.rename(tmp_path / "config.json")
    path.symlink_to(tmp_path / "config.json")
    assert host.check() == ["config.json is missing"]


def test_plan_and_registry_must_say_the_same(host: Host) -> None:
    host.write_manifest(**{"config.json": "0" * 64})
    (problem,) = host.check()
    assert problem.startswith("config.json: planned sha256:")
    assert "the registry signed sha256:000" in problem


@pytest.mark.parametrize("how", ["none", "garbage", "other key", "other commit", "no key", "bytes"])
def test_a_manifest_that_the_registry_did_not_sign_for_this_commit(
    host: Host, tmp_path: Path, how: str
) -> None:
    match how:
        case "none":
            host.model.manifest.unlink()
        case "garbage":
            host.model.manifest.write_text("{")
        case "other key":
            (tmp_path / "other").mkdir()
            other = open_registry_key(tmp_path / "other")
            host.model.key.write_text(key_pem(other.trusted.key))
        case "other commit":
            host.write_manifest("d" * 40)
        case "no key":
            host.model.key.unlink()
        case "bytes":
            document = json.loads(host.model.manifest.read_text())
            payload = base64.b64decode(document["payload"]).replace(b"weights", b"weighty")
            document["payload"] = base64.b64encode(payload + b" ").decode()
            host.model.manifest.write_text(json.dumps(document))
    (problem,) = host.check()
    assert problem.startswith("no signed manifest of this commit: ")
    assert host.holds() == [problem]


def test_a_new_plan_or_manifest_is_checked_again(host: Host) -> None:
    assert host.check() == []
    host.model.planned["config.json"]["digest"] = "sha256:" + "0" * 64
    assert host.holds() == ["the plan or the registry's manifest changed since the check"]
    assert "config.json: planned sha256:000" in host.check()[0]


def test_an_apply_sets_an_altered_model_aside_and_leaves_a_whole_one(host: Host) -> None:
    assert host.check() == []
    assert host.script.set_aside(host.model) == ""
    host.flip()
    said = host.script.set_aside(host.model)
    assert said.startswith("set aside as ")
    assert "deep/model.safetensors was altered" in said
    assert not host.model.path.exists()
    assert not host.model.manifest.exists()
    assert host.script.set_aside(host.model) == ""


def test_the_command_pulls_what_is_missing_and_says_why_it_refuses(
    host: Host, tmp_path: Path
) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    text = (FILES / "check_model.py").read_text()
    text = text.replace('"/run/holdfast-model"', repr(str(host.script.NOTES)))
    (folder / "check_model.py").write_text(text)
    (folder / "pull_model.py").write_text("import sys; print('pulled', sys.argv[1])")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(folder / "check_model.py"), *options, str(host.spec)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("--stamp")
    assert done.returncode == 1
    assert "org/tiny@cccccccccccc is not served: not checked since" in done.stderr
    done = run("--pull-with", sys.executable)
    assert (done.returncode, done.stdout) == (0, f"pulled {host.spec}\n")
    assert run("--stamp").returncode == 0
    assert run("--pull-with", sys.executable).stdout == ""
    host.flip()
    assert run("--stamp").returncode == 1
    done = run("--pull-with", sys.executable)
    assert done.returncode == 1
    assert "deep/model.safetensors was altered" in done.stderr
    assert "holdfast apply" in done.stderr
    done = run("--stamp")
    assert "deep/model.safetensors was altered" in done.stderr
    assert run("--set-aside").stdout.startswith("set aside as ")
