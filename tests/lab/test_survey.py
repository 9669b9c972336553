"""The survey and the plan on real hosts, in order and with one thing wrong at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from site_parts import write_bundle

from holdfast_installer.lab import cluster
from holdfast_installer.plan import Plan
from holdfast_installer.survey.facts import UNREAD, Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.lab.layout import Lab

pytestmark = pytest.mark.lab

HOLDFAST = str(Path(sys.executable).parent / "holdfast")
HOSTS = ("control-1", "serving-1", "serving-2")


class Site:
    """A lab with the site file that `holdfast init` makes of it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.path = folder / "site.yml"
        model = folder / "starter"
        model.mkdir()
        arguments = ["--lab", lab.name, "--jurisdiction", "de", "--hardware", "cpu-low-power"]
        arguments += ["--model", f"holdfast/starter={model}", "--output", str(self.path)]
        done = subprocess.run(
            [HOLDFAST, "init", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        self.bundle = folder / "bundle"
        write_bundle(self.bundle)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run holdfast where the operator sits."""
        command = cluster.command_in(self.lab, "operator", [HOLDFAST, *arguments])
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def survey(self, path: Path | None = None) -> tuple[int, Survey]:
        done = self.command("survey", "--site", str(path or self.path), "--json")
        assert done.stdout, done.stderr
        return done.returncode, Survey.model_validate(json.loads(done.stdout)["survey"])

    def plan(self) -> tuple[int, Plan]:
        done = self.command(
            "plan", "--site", str(self.path), "--bundle", str(self.bundle), "--json"
        )
        assert done.stdout, done.stderr
        return done.returncode, Plan.model_validate(json.loads(done.stdout))

    def on(self, host: str, command: str) -> str:
        """Run a shell command as root on one of the lab's hosts."""
        done = subprocess.run(
            cluster.command_in(self.lab, host, ["sh", "-c", command]),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def changed(self, name: str, old: str, new: str) -> Path:
        """Write a site file beside the good one, with one text replaced."""
        text = self.path.read_text()
        assert old in text
        path = self.path.with_name(name)
        path.write_text(text.replace(old, new))
        return path


@pytest.fixture(scope="module")
def site(make_lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(make_lab(*HOSTS), tmp_path_factory.mktemp("site"))


def test_every_fact_of_every_host_is_read(site: Site) -> None:
    code, survey = site.survey()
    assert code == 0
    assert [(host.name, host.reach, host.unread()) for host in survey.hosts] == [
        (name, "read", ()) for name in HOSTS
    ]
    for host in survey.hosts:
        assert host.os != UNREAD
        assert host.os.codename == "bookworm"
        assert host.kernel != UNREAD
        assert host.kernel.container
        assert host.clock != UNREAD
        assert abs(host.clock.offset_seconds) - host.clock.doubt_seconds < 5
        assert host.listeners != UNREAD
        assert "ssh.service" in {one.unit for one in host.listeners if one.port == 22}
    keys = {host.host_key.fingerprint for host in survey.hosts if host.host_key != UNREAD}
    known = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(site.lab.ssh.known_hosts)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert keys <= set(known.stdout.split())


def test_a_plan_of_bare_hosts_has_no_blockers(site: Site) -> None:
    code, plan = site.plan()
    assert code == 0, plan.blockers
    assert {one.host for host in plan.hosts.values() for one in host.replicas} == {
        "serving-1",
        "serving-2",
    }
    assert not plan.hosts["serving-1"].chrony_adjust_clock


def test_looking_changes_nothing_on_a_host(site: Site) -> None:
    site.on("serving-1", "touch /root/stamp; sleep 0.1")
    assert site.plan()[0] == 0
    kept = "-not -path '/run/*' -not -path '/var/log/*'"
    assert site.on("serving-1", f"find / -xdev -type f -newer /root/stamp {kept}") == ""


def test_wrong_unknown_and_refused_keys_are_told_apart(site: Site) -> None:
    folder = site.path.parent
    known = site.lab.ssh.known_hosts.read_text()
    address = site.lab.host("serving-1").address
    control = site.lab.host("control-1").address
    lines = known.splitlines()
    other = next(line.split()[-1] for line in lines if control in line)
    spoiled = []
    for line in lines:
        if address in line.split()[0].split(","):
            spoiled.append(f"{address} ssh-ed25519 {other}")
        elif site.lab.host("serving-2").address not in line:
            spoiled.append(line)
    (folder / "known").write_text("\n".join(spoiled) + "\n")
    path = site.changed("keys.yml", str(site.lab.ssh.known_hosts), str(folder / "known"))
    code, survey = site.survey(path)
    assert code == 3
    assert [host.reach for host in survey.hosts] == ["read", "wrong-host-key", "unknown-host-key"]
    key = folder / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    path = site.changed("user.yml", str(site.lab.ssh.private_key), str(key))
    code, survey = site.survey(path)
    assert {host.reach for host in survey.hosts} == {"authentication-failed"}
    assert (folder / "known").read_text() == "\n".join(spoiled) + "\n", "a key was added"


def test_a_stranger_on_a_port_and_a_held_lock_bar_the_plan(site: Site) -> None:
    run = "systemd-run --quiet --collect --unit"
    site.on("serving-1", f"{run} stranger python3 -m http.server 8400")
    holder = '{"operator":"bo","machine":"desk","process":"1","since":"08:00"}'
    site.on("control-1", f"echo '{holder}' >/run/holdfast-apply.holder")
    site.on("control-1", f"{run} holder flock /run/holdfast-apply.lock sleep 600")
    site.on("serving-1", "until grep -q ':20D0 ' /proc/net/tcp; do sleep 0.1; done")
    try:
        code, plan = site.plan()
    finally:
        site.on("serving-1", "systemctl stop stranger")
        site.on("control-1", "systemctl stop holder")
    assert code == 3
    found = {(one.name, one.host, one.detail) for one in plan.blockers}
    assert found == {
        ("port", "serving-1", "tcp port 8400 is taken by stranger.service"),
        ("apply-lock", "control-1", "another apply is running: bo on desk since 08:00"),
    }
    assert site.plan()[0] == 0, "the lock file that stayed behind is not a lock"


def test_a_fact_that_fails_is_unread_and_bars_the_plan(site: Site) -> None:
    site.on("serving-2", "mv /usr/bin/ip /usr/bin/ip.away")
    try:
        code, survey = site.survey()
        _, plan = site.plan()
    finally:
        site.on("serving-2", "mv /usr/bin/ip.away /usr/bin/ip")
    assert code == 3
    assert survey.host("serving-2").unread() == ("interfaces",)
    assert [(one.name, one.host) for one in plan.blockers] == [("unread", "serving-2")]


def test_a_host_that_is_off_is_unreachable_and_the_others_are_read(site: Site) -> None:
    cluster.stop_host(site.lab.name, "serving-2")
    code, survey = site.survey()
    assert code == 3
    assert [host.reach for host in survey.hosts] == ["read", "read", "unreachable"]
    _, plan = site.plan()
    assert [(one.name, one.host) for one in plan.blockers] == [("unreachable", "serving-2")]
