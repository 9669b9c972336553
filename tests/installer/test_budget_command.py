"""`holdfast budget list` from the operator's side; a stand-in for ssh notes what it is asked."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from site_parts import DATA

from holdfast_installer.budget_command import budget

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("given", "asked"), [([], []), (["--json"], ["--json"])])
def test_the_control_host_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], asked: list[str]
) -> None:
    program = tmp_path / "bin/ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nfor words; do :; done; echo "$words" > {tmp_path}/asked\n'
        "echo report; echo said >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    site = tmp_path / "site.yml"
    site.write_text((DATA / "site-example.yml").read_text())
    done = CliRunner().invoke(budget, ["list", *given, "--site", str(site)])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "report\n", "said\n")
    words = shlex.split((tmp_path / "asked").read_text())
    assert words == ["/usr/local/sbin/holdfast-gateway", "budgets", *asked]
