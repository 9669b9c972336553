from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import yaml
from gateway_parts import COMMAND, write_config

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_a_bad_configuration_is_usage_and_names_the_field(tmp_path: Path) -> None:
    file = write_config(tmp_path, "http://127.0.0.1:1", surprise=1)
    for command in ("serve", "usage"):
        done = run(command, "--config", str(file))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"error: {file}: surprise: " in done.stderr


def test_a_database_that_cannot_be_opened_fails_before_there_is_a_server(tmp_path: Path) -> None:
    file = write_config(tmp_path, "http://127.0.0.1:1", database="sqlite:////nowhere/usage.db")
    done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert "unable to open database file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_seed_with_mistakes_is_told(tmp_path: Path) -> None:
    file = write_config(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "seed.yml").write_text("user: []")
    done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert "seed.yml" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_identity_database_without_tables_is_told(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/trust.db"
    file = write_config(tmp_path, "http://127.0.0.1:1", trust={"database": database})
    done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert "identity database" in done.stderr
    assert "holdfast-trust --database" in done.stderr


def test_a_port_in_use_is_an_error_and_the_process_ends(tmp_path: Path) -> None:
    import socket

    file = write_config(tmp_path, "http://127.0.0.1:1")
    host, _, port = yaml.safe_load(file.read_text())["listen"].rpartition(":")
    with socket.create_server((host, int(port))):
        done = run("serve", "--config", str(file))
    assert done.returncode == 1
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_usage_of_nothing_has_no_rows(tmp_path: Path) -> None:
    done = run("usage", "--config", str(write_config(tmp_path, "http://127.0.0.1:1")), "--json")
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, [])
