"""The answers of the child become facts; a host out of reach says for which reason."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from site_parts import DATA, example_site

from holdfast_installer.survey.facts import FACTS, UNREAD
from holdfast_installer.survey.surveying import read_answer, take_survey

if TYPE_CHECKING:
    from pathlib import Path


def test_a_fact_that_failed_is_unread_and_the_others_stand() -> None:
    answer = {
        "reach": "read",
        "detail": "",
        "lines": {"os": ["ID=debian"], "kernel": None, "memory": ["rubbish"], "clock": ["12.5"]},
        "clock": {"before": 10.0, "after": 11.0},
        "host_key": {"kind": "ssh-ed25519", "fingerprint": "SHA256:x"},
    }
    host = read_answer("a", "10.0.0.1", answer)
    assert host.os != UNREAD
    assert host.kernel == UNREAD
    assert host.memory == UNREAD
    assert "memory: not understood" in host.detail
    assert "kernel: the host did not answer it" in host.detail
    assert host.clock != UNREAD
    assert (host.clock.offset_seconds, host.clock.doubt_seconds) == (2.0, 0.5)
    assert set(host.unread()) == set(FACTS) - {"os", "clock", "host_key"}


def test_a_host_the_child_left_out_is_an_error_not_an_empty_host() -> None:
    host = read_answer("a", "10.0.0.1", None)
    assert host.reach == "error"
    assert set(host.unread()) == set(FACTS)


def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    key = tmp_path / "id"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(command, check=True)
    text = (DATA / "site-example.yml").read_text()
    for old, new in (
        ("/keys/id_ed25519", str(key)),
        ("198.18.1.11", "127.0.0.1"),
        ("198.18.1.21", "127.0.0.2"),
        ("198.18.1.22", "127.0.0.3"),
        ("port: 22", "port: 1"),
    ):
        text = text.replace(old, new)
    survey = take_survey(example_site(text))
    assert [host.reach for host in survey.hosts] == ["unreachable"] * 3
    assert all(host.unread() == FACTS for host in survey.hosts)


def test_nothing_but_the_child_loads_pyinfra() -> None:
    code = (
        "import sys, holdfast_installer.survey.command, holdfast_installer.plan_command;"
        "sys.exit(any(name.split('.')[0] in {'pyinfra', 'gevent'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
