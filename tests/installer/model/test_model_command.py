"""`holdfast model` from the operator's side; a stand-in for ssh notes what it is asked."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from site_parts import DATA

from holdfast_installer.errors import HoldfastError
from holdfast_installer.model import command
from holdfast_installer.remote import operator_name

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


class Ssh:
    """An `ssh` on PATH that writes down its last argument and its standard input."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.given = folder / "asked", folder / "given"
        self.program = folder / "bin/ssh"
        self.program.parent.mkdir()
        monkeypatch.setenv("PATH", f"{self.program.parent}:/usr/bin:/bin")
        monkeypatch.delenv("HOLDFAST_TOKEN", raising=False)
        self.answers()

    def answers(self, text: str = "", code: int = 0, hosts: int = 0) -> None:
        """Answer the registry's commands with `code`, those on serving hosts with `hosts`."""
        lines = [
            "#!/bin/sh",
            f'for words; do :; done; echo "$words" >> {self.asked}; cat >> {self.given}',
            f'case "$words" in *approval.py*) echo told >&2; exit {hosts};; esac',
            f"printf %s {shlex.quote(text)}; exit {code}",
        ]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(0o755)

    @property
    def commands(self) -> list[list[str]]:
        return [shlex.split(line) for line in self.asked.read_text().splitlines()]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    return Ssh(tmp_path, monkeypatch)


def run(folder: Path, *words: str | Path) -> Result:
    site = folder / "site.yml"
    site.write_text((DATA / "site-example.yml").read_text())
    return CliRunner().invoke(command.model, [*map(str, words), "--site", str(site)])


def test_looking_is_done_on_the_control_host_and_tells_nobody(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers("[]")
    done = run(tmp_path, "list", "--state", "scanned", "--model", "a/b", "--json")
    assert (done.exit_code, done.stdout) == (0, "[]")
    (words,) = ssh.commands
    assert words[:3] == [
        "env",
        f"HOLDFAST_TRUST_ACTOR={operator_name()}",
        "/usr/local/sbin/holdfast-model-registry",
    ]
    assert words[3:] == ["model", "list", "--state", "scanned", "--model", "a/b", "--json"]
    assert run(tmp_path, "show", "a/b@0123456").exit_code == 0
    assert ssh.commands[1][3:] == ["model", "show", "a/b@0123456"]


@pytest.mark.parametrize("verb", ["approve", "quarantine", "reject"])
def test_a_decision_is_told_to_every_serving_host(ssh: Ssh, tmp_path: Path, verb: str) -> None:
    done = run(tmp_path, verb, "a/b@0123456", "--note", "a reason")
    assert done.exit_code == 0, done.output
    first, *others = ssh.commands
    assert first[3:] == ["model", verb, "a/b@0123456", "--note", "a reason"]
    assert len(others) == 2
    assert all(words[-2:] == ["--now", "a/b"] for words in others)
    assert ssh.given.read_text() == ""


def test_a_token_goes_over_standard_input(
    ssh: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hft_secret\n")
    assert run(tmp_path, "approve", "a/b", "--token-file", tmp_path / "token").exit_code == 0
    assert ssh.commands[0][-2:] == ["--token-file", "-"]
    assert ssh.given.read_text() == "hft_secret"
    assert "hft_secret" not in ssh.asked.read_text()
    monkeypatch.setenv("HOLDFAST_TOKEN", "hft_other")
    assert run(tmp_path, "approve", "a/b").exit_code == 0
    assert ssh.given.read_text() == "hft_secrethft_other"


def test_a_refusal_is_passed_on_and_told_to_no_host(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(code=3)
    assert run(tmp_path, "approve", "a/b").exit_code == 3
    assert len(ssh.commands) == 1
    assert run(tmp_path, "quarantine", "a/b").exit_code == 2  # says not why


def test_a_host_that_cannot_be_told_is_named(
    ssh: Ssh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ssh.answers(hosts=1)
    done = run(tmp_path, "quarantine", "a/b", "--note", "x")
    assert done.exit_code == 0
    assert (done.stderr + capsys.readouterr().err).count("could not be told") == 2


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_file_without_a_token(ssh: Ssh, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    done = run(tmp_path, "approve", "a/b", "--token-file", tmp_path / "token")
    assert isinstance(done.exception, HoldfastError)
    assert "holdfast token issue" in str(done.exception)
    assert not ssh.asked.exists()


def test_import_is_an_apply_of_two_capabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr(command.apply, "callback", lambda **given: seen.update(given))
    done = run(tmp_path, "import", "--bundle", tmp_path / "bundle", "--json")
    assert done.exit_code == 0, done.output
    assert seen["capabilities"] == ("bundle", "model_registry")
    assert (seen["bundle"], seen["check"]) == (tmp_path / "bundle", False)
