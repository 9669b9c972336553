"""People, teams and tokens from the operator's side; a stand-in for ssh notes what it is asked."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from site_parts import DATA

from holdfast_installer.errors import HoldfastError
from holdfast_installer.model.command import model
from holdfast_installer.principals import agent, ca, kill, token, user

if TYPE_CHECKING:
    from pathlib import Path

    import click
    from click.testing import Result

SECRET = "hft_" + "a" * 49
ISSUED = json.dumps({"changed": True, "token_id": "1", "last_four": "aaaa", "token": SECRET})
VALID = json.dumps([{"last_four": "aaaa", "name": "default", "state": "valid"}])


class Ssh:
    """An `ssh` on PATH that writes down its last argument and answers as told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = folder / "asked"
        self.program = folder / "bin/ssh"
        self.program.parent.mkdir()
        monkeypatch.setenv("PATH", f"{self.program.parent}:/usr/bin:/bin")
        self.answers("")

    def answers(self, *cases: str, last: str = "", code: int = 0) -> None:
        """Answer `last`, or where a case's first word is in the command, what follows it."""
        lines = ["#!/bin/sh", f'for words; do :; done; echo "$words" >> {self.asked}']
        for case in cases:
            word, _, answer = case.partition(" ")
            lines.append(
                f'case "$words" in *{word}*) printf %s {shlex.quote(answer)}; exit 0;; esac'
            )
        lines += [f"printf %s {shlex.quote(last)}", f"exit {code}"]
        self.program.write_text("\n".join(lines) + "\n")
        self.program.chmod(0o755)

    @property
    def commands(self) -> list[str]:
        return self.asked.read_text().splitlines()


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    return Ssh(tmp_path, monkeypatch)


def site_file(folder: Path, account: str = "root") -> Path:
    path = folder / "site.yml"
    text = (DATA / "site-example.yml").read_text()
    path.write_text(text.replace("ssh: {user: root", f"ssh: {{user: {account}"))
    return path


def run(command: click.Command, *words: str | Path) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_orders_are_carried_out_on_the_control_host(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(last="user ada added")
    done = run(user, "add", "ada", "--team", "research", "--site", site_file(tmp_path))
    assert (done.exit_code, done.stdout) == (0, "user ada added")
    (command,) = ssh.commands
    words = shlex.split(command)
    assert words[0] == "env"
    assert words[2:] == [
        "/usr/local/sbin/holdfast-trust",
        "user",
        "add",
        "ada",
        "--team",
        "research",
    ]


def test_another_account_than_root_asks_for_its_rights(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(last="PEM")
    assert run(ca, "--site", site_file(tmp_path, "debian")).stdout == "PEM"
    assert run(user, "list", "--site", site_file(tmp_path, "debian")).exit_code == 0
    assert all(command.startswith("sudo -n -- ") for command in ssh.commands)


def test_what_the_host_refuses_is_refused_here(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(code=1)
    assert run(user, "add", "ada", "--site", site_file(tmp_path)).exit_code == 1


def test_a_token_file_is_private_even_where_an_open_one_was(ssh: Ssh, tmp_path: Path) -> None:
    output = tmp_path / "token"
    output.write_text("an old one\n")
    output.chmod(0o644)
    ssh.answers("issue " + ISSUED, "list []")
    done = run(token, "issue", "ada", "--output", output, "--site", site_file(tmp_path))
    assert done.exit_code == 0, done.output
    assert output.read_text() == f"{SECRET}\n"
    assert output.stat().st_mode & 0o777 == 0o600
    assert SECRET not in done.output


def test_a_file_that_holds_a_valid_token_is_kept(ssh: Ssh, tmp_path: Path) -> None:
    output = tmp_path / "token"
    output.write_text(f"{SECRET}\n")
    ssh.answers("list " + VALID, "issue {}")
    done = run(token, "issue", "ada", "--output", output, "--site", site_file(tmp_path))
    assert done.exit_code == 0, done.output
    assert not any("issue" in command for command in ssh.commands)


def test_a_token_that_is_not_issued_leaves_the_file_alone(ssh: Ssh, tmp_path: Path) -> None:
    output = tmp_path / "token"
    output.write_text("the old one\n")
    ssh.answers(code=1)
    done = run(token, "issue", "ada", "--output", output, "--site", site_file(tmp_path))
    assert isinstance(done.exception, HoldfastError)
    assert output.read_text() == "the old one\n"


def test_a_new_file_does_not_ask_for_a_rotation(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers("issue " + ISSUED)
    issue = (token, "issue", "ada", "--verb", "read", "--output", tmp_path / "new/token")
    site = ("--site", site_file(tmp_path))
    assert run(*issue, *site).exit_code == 0
    words = shlex.split(ssh.commands[-1])
    assert words[-6:] == ["token", "issue", "ada", "--verb", "read", "--json"]
    assert "--rotate" not in words
    assert run(*issue, "--rotate", *site).exit_code == 0
    assert "--rotate" in shlex.split(ssh.commands[-1])


def test_where_the_file_cannot_be_written_no_token_is_asked_for(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers("issue " + ISSUED)
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "token"
    done = run(token, "issue", "ada", "--output", output, "--site", site_file(tmp_path))
    assert isinstance(done.exception, HoldfastError)
    assert "No token was issued" in done.exception.problem
    assert not ssh.asked.exists()


def test_an_agents_token_goes_to_a_file_here(ssh: Ssh, tmp_path: Path) -> None:
    output = tmp_path / "scout.token"
    site = ("--site", site_file(tmp_path))
    words = ("create", "scout", "--for", "ada", "--hours-to-live", "8", "--model", "a/b")
    ssh.answers("create " + ISSUED)
    done = run(agent, *words, "--output", output, *site)
    assert done.exit_code == 0, done.output
    assert output.read_text() == f"{SECRET}\n"
    assert SECRET not in done.output
    assert shlex.split(ssh.commands[-1])[3:] == ["agent", *words, "--json"]
    for state in ("valid", "hours", "stopped"):
        held = [{"last_four": "aaaa", "name": "agent", "state": state}]
        ssh.answers("list " + json.dumps(held), code=1)
        assert run(agent, *words, "--output", output, *site).exit_code == 0
    ssh.answers("list " + json.dumps([held[0] | {"state": "expired"}]), "create " + ISSUED)
    assert run(agent, *words, "--output", output, *site).exit_code == 0
    assert " create " in ssh.commands[-1]


def test_an_order_to_stop_is_one_command_on_the_control_host(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(last="agent scout is stopped")
    words = ("agent", "scout", "--reason", "asks in a loop; rm -rf /")
    done = run(kill, *words, "--site", site_file(tmp_path))
    assert (done.exit_code, done.stdout) == (0, "agent scout is stopped")
    (command,) = ssh.commands
    assert shlex.split(command)[2:] == ["/usr/local/sbin/holdfast-trust", "kill", *words]


def test_examples_are_given_in_the_words_of_this_command() -> None:
    help_text = run(token, "issue", "--help").stdout
    assert "holdfast token issue ada --name ci --verb write" in help_text
    assert "holdfast-trust" not in help_text


def test_who_reads_a_model_is_said_on_the_control_host(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(last="opened")
    site = ("--site", site_file(tmp_path))
    wish = ("access", "org/name", "--team", "a", "--team", "b", "--classification", "secret")
    assert run(model, *wish, "--json", *site).stdout == "opened"
    words = shlex.split(ssh.commands[-1])
    assert words[2] == "/usr/local/sbin/holdfast-model-registry"
    assert words[3:] == ["model", *map(str, wish), "--json"]
    run(model, "access", "org/name", "--dataset", "--no-team", *site)
    assert shlex.split(ssh.commands[-1])[-2:] == ["--dataset", "--no-team"]


def test_no_host_to_ask_says_how_to_look(ssh: Ssh, tmp_path: Path) -> None:
    ssh.answers(code=255)
    done = run(user, "list", "--site", site_file(tmp_path))
    assert isinstance(done.exception, HoldfastError)
    assert "cannot be reached" in done.exception.problem
