"""What apply does when it is killed, raced, cheated or left by a host: refuse early, or go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from quick_site import HOLDFAST, QUESTION, ROOT, STARTER, QuickSite, environment, quickstart
from running_apply import Running, alive, came, records, soon, tell

from holdfast_installer.bundle import signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

NAME = "faults"
HOSTS = ("control-1", "serving-1")
# Events of one apply to these two hosts, less a margin: every kill has to find it running.
EVENTS = 220
KILLS = 5
BALANCER_SECONDS = 120
ANSWER = f"""
import openai, sys
answer = openai.OpenAI(max_retries=0).chat.completions.create(
    model=sys.argv[1], temperature=0, messages=[{{"role": "user", "content": {QUESTION!r}}}])
print(answer.choices[0].message.content)
"""
# Holds the lock with apply's own code; with a second argument, in a child that outlives it too.
HOLD = """
import subprocess, sys, time
from pathlib import Path
from holdfast_installer.converge.lock import ApplyLock
from holdfast_installer.site_file import load_site
site = load_site(Path(sys.argv[1]))
with ApplyLock(site, site.host("control-1")) as lock:
    if len(sys.argv) > 2:
        subprocess.Popen(["sleep", sys.argv[2]], pass_fds=(lock.descriptor,), stdout=2)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def site() -> Iterator[QuickSite]:
    """Boot two bare hosts of our own beside the quickstart's, with a site file for its bundle."""
    made = ROOT / "build/quickstart/bundle"
    if not (made / "manifest.json").exists():
        quickstart()
    faults = QuickSite(NAME, ROOT / "build" / NAME, {})
    shutil.rmtree(faults.folder, ignore_errors=True)
    shutil.copytree(made, faults.bundle, copy_function=os.link)
    faults.holdfast("lab", "down", "--name", NAME)
    try:
        faults.holdfast("lab", "up", "--name", NAME, "--hosts", ",".join(HOSTS))
        starter = ROOT / "model-registry/starter/holdfast-starter"
        faults.holdfast(
            *("init", "--lab", NAME, "--jurisdiction", "de", "--replicas", "1"),
            *("--model", f"{STARTER}={starter}", "--team", "research=ada"),
            *("--output", faults.site_file),
        )
        yield faults
    finally:
        faults.holdfast("lab", "down", "--name", NAME)
        shutil.rmtree(faults.bundle)


@pytest.fixture
def installed(site: QuickSite) -> QuickSite:
    """Make sure that the site stands, whichever tests ran before, and give its user a token."""
    journals = records(site)
    if not journals or journals[-1]["outcome"] != "done":
        site.apply()
    if not site.printed:
        token, ca = site.folder / "token", site.folder / "ca.pem"
        site.operator("token", "issue", "ada", "--output", str(token))
        site.operator("ca", "--output", str(ca))
        site.printed.update(token=token.read_text().strip(), ca=str(ca))
    return site


def untouched(site: QuickSite) -> bool:
    """Tell whether both hosts are as bare as the lab booted them, and no journal was begun."""
    paths = "/opt/holdfast /srv/holdfast /etc/holdfast /var/lib/holdfast /run/holdfast-apply.lock"
    look = f'for path in {paths}; do [ -e "$path" ] && echo "$path"; done; true'
    return not records(site) and not any(site.run(host, "sh", "-c", look).stdout for host in HOSTS)


def lock_is_held(site: QuickSite) -> bool:
    tried = site.run("control-1", "flock", "-n", "/run/holdfast-apply.lock", "true", check=False)
    return tried.returncode != 0


def answers(site: QuickSite) -> bool:
    """Ask until there is an answer: the balancer takes up an engine at its next health check."""
    began = time.monotonic()
    found = soon(
        lambda: "Holdfast" in site.researcher(ANSWER, STARTER, check=False).stdout, BALANCER_SECONDS
    )
    tell(f"answered {time.monotonic() - began:.0f} s after the apply")
    return found


# On bare hosts, before anything is installed.


def name_of(bundle: Path, blob: Path) -> str:
    artifacts = json.loads((bundle / "manifest.json").read_text())["artifacts"]
    found = [one["filename"] for one in artifacts if one["digest"] == f"sha256:{blob.name}"]
    return str(found[0])


def flip_a_byte(bundle: Path) -> str:
    blob = next(path for path in sorted(bundle.glob("blobs/sha256/*/*")) if path.stat().st_size > 9)
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 1
    blob.unlink()  # a link: the true bundle keeps its own
    blob.write_bytes(content)
    return name_of(bundle, blob)


def lose_a_blob(bundle: Path) -> str:
    blob = next(iter(sorted(bundle.glob("blobs/sha256/*/*"))))
    blob.unlink()
    return name_of(bundle, blob)


def unsign(bundle: Path) -> str:
    shutil.rmtree(bundle / "signatures")
    return "not signed by whom you trust"


def sign_as_a_stranger(bundle: Path) -> str:
    unsign(bundle)
    key = bundle.with_name("stranger")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (bundle / "signatures").mkdir()
    signed = signature.sign((bundle / "manifest.json").read_bytes(), key)
    (bundle / "signatures" / signature.file_name(key)).write_bytes(signed)
    return "a key that is not in allowed_signers"


@pytest.mark.parametrize("damage", [flip_a_byte, lose_a_blob, unsign, sign_as_a_stranger])
def test_a_bundle_that_does_not_hold_is_refused_before_a_host_is_touched(
    site: QuickSite, damage: Callable[[Path], str]
) -> None:
    # Beside the true one, so that the blobs can be hard links.
    folder = site.folder / "damaged"
    shutil.copytree(site.bundle, folder / "bundle", copy_function=os.link)
    try:
        named = damage(folder / "bundle")
        refused = site.operator("apply", "--bundle", str(folder / "bundle"), check=False)
    finally:
        shutil.rmtree(folder)
    assert refused.returncode == 3, refused.stderr
    assert named in refused.stderr
    assert "next:" in refused.stderr
    assert untouched(site)


def test_every_blocker_is_named_at_once_and_nothing_is_touched(
    site: QuickSite, tmp_path: Path
) -> None:
    wrong = yaml.safe_load(Path(site.site_file).read_text())
    known = Path(wrong["ssh"]["known_hosts"]).read_text().splitlines()
    control, serving = wrong["hosts"]
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    key = stranger.with_suffix(".pub").read_text().strip()
    kept = [line for line in known if control["address"] not in line.split()[0]]
    (tmp_path / "known_hosts").write_text("\n".join([*kept, f"{control['address']} {key}", ""]))
    wrong["ssh"]["known_hosts"] = str(tmp_path / "known_hosts")
    serving["address"] = serving["address"].rpartition(".")[0] + ".99"
    wrong["models"].append({**wrong["models"][0], "id": "holdfast/absent"})
    site_file = tmp_path / "site.yml"
    site_file.write_text(yaml.safe_dump(wrong))
    refused = site.run(
        *("operator", HOLDFAST, "apply", "--site", str(site_file), "--bundle", site.bundle),
        check=False,
    )
    assert refused.returncode == 3, refused.stderr
    assert "nothing was touched" in refused.stderr
    assert "wrong-host-key [control-1]" in refused.stderr
    assert "unreachable [serving-1]" in refused.stderr
    assert "holdfast/absent" in refused.stderr
    assert not (tmp_path / "journal").exists()
    assert untouched(site)


@contextlib.contextmanager
def holder(site: QuickSite, *child_seconds: str, far: bool = False) -> Iterator[int]:
    """Hold the apply lock in a process of ours, or in one that says it is bob's on another host."""
    program = [sys.executable, "-c", HOLD, site.site_file, *child_seconds]
    if far:
        bob = "hostname far && exec env LOGNAME=bob USER=bob " + shlex.join(program)
        program = ["unshare", "--uts", "sh", "-c", bob]
    with subprocess.Popen(
        site.inside("operator", *program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment(),
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process.pid
        finally:
            process.kill()


def test_a_killed_holder_frees_the_lock(site: QuickSite) -> None:
    with holder(site) as pid:
        assert lock_is_held(site)
        os.kill(pid, signal.SIGKILL)
        assert soon(lambda: not lock_is_held(site), 10)


def test_a_child_of_a_killed_holder_keeps_the_lock_until_it_ends(site: QuickSite) -> None:
    with holder(site, "12") as pid:
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    assert lock_is_held(site)
    with holder(site):  # an apply of the same machine waits for what its forerunner left running
        assert time.monotonic() - began > 10


def test_another_operator_is_refused_by_name_and_a_stale_name_bars_nobody(
    site: QuickSite,
) -> None:
    with holder(site, far=True):
        refused = site.apply(check=False)
        assert refused.returncode == 3, refused.stderr
        assert "apply-lock [control-1]: held by bob on far (process" in refused.stderr
        assert "nothing was touched" in refused.stderr
    assert soon(lambda: not lock_is_held(site), 10)
    assert "bob" in site.run("control-1", "cat", "/run/holdfast-apply.holder").stdout
    with holder(site):
        assert lock_is_held(site)
    assert not records(site)


def test_ctrl_c_leaves_nothing_running_and_says_how_to_go_on(site: QuickSite) -> None:
    with Running(site) as apply:
        apply.wait_for(lambda events: len(events) >= 4)
        ansible = apply.ansible()
        # Ansible has the pipe that keeps the lock, so that what outlives us keeps it too.
        pipe = Path(f"/proc/{apply.child('holdfast-apply.lock')}/fd/0").readlink()
        assert pipe in [path.readlink() for path in Path(f"/proc/{ansible}/fd").iterdir()]
        os.killpg(apply.process.pid, signal.SIGINT)
        assert apply.process.wait(timeout=300) == 1
    assert not alive(ansible)
    # What Ansible runs on a host is this, with the module on its standard input.
    assert not site.run("control-1", "pgrep", "-fx", "/usr/bin/python3", check=False).stdout
    assert not lock_is_held(site)
    printed = apply.printed()
    assert "Apply was interrupted." in printed
    assert "run the same apply again" in printed
    assert '"outcome": "interrupted"' in printed
    assert records(site)[-1]["outcome"] == "interrupted"


def points(seed: int) -> list[tuple[int, float]]:
    """Return where to kill: after how many events, ever later, and how many seconds after that."""
    chance = random.Random(seed)
    part = EVENTS // KILLS
    return [
        (part * number + chance.randrange(1, part), round(chance.uniform(0, 3), 1))
        for number in range(KILLS)
    ]


def test_killed_at_five_points_of_a_first_install_it_goes_on_each_time(
    site: QuickSite, record_property: Callable[[str, object], None], tmp_path: Path
) -> None:
    with site.sealed(tmp_path / "install.pcap", "--own-only"):
        _kill_and_go_on(site, record_property)


def _kill_and_go_on(site: QuickSite, record_property: Callable[[str, object], None]) -> None:
    seed = int(os.environ.get("HOLDFAST_TEST_SEED", "") or secrets.randbelow(10**6))
    tell(f"HOLDFAST_TEST_SEED={seed}: killed after (events, seconds) {points(seed)}")
    record_property("seed", seed)
    for events, pause in points(seed):
        with Running(site) as apply:
            apply.wait_for(lambda seen, wanted=events: len(seen) >= wanted)
            time.sleep(pause)
            ansible = apply.ansible()
            seen = apply.events()
        # Leaving the block killed it, with SIGKILL.
        assert apply.process.returncode == -signal.SIGKILL, apply.printed()
        assert soon(lambda child=ansible: not alive(child), 5), "Ansible outlived its parent"
        assert records(site)[-1]["outcome"] == "running"
        last = [event for event in seen if event["event"] == "task"][-1]
        tell(f"killed after {len(seen)} events in {last['role']}: {last['task']}")
    began = time.monotonic()
    with Running(site) as final:
        assert final.end() == 0, final.printed()
    tell(f"the last one took {time.monotonic() - began:.0f} s")
    assert "The last apply was interrupted in " in final.printed()
    outcomes = [record["outcome"] for record in records(site)]
    assert outcomes[-KILLS - 1 :] == ["interrupted"] * KILLS + ["done"]


def test_what_was_killed_so_often_works_and_has_nothing_left_to_change(
    installed: QuickSite,
) -> None:
    assert answers(installed)
    verdicts = installed.verdicts()
    assert set(verdicts.values()) == {"pass"}, verdicts
    assert json.loads(installed.apply().stdout)["changed"] == dict.fromkeys(HOSTS, 0)


def digest_of(site: QuickSite, host: str) -> str:
    """Return one line that tells apart any two states of a host's configuration and release."""
    look = "find /etc /opt/holdfast -xdev -printf '%p %m %u %s %T@ %l\\n' | sort | sha256sum"
    return site.run(host, "sh", "-c", look).stdout


def test_check_says_what_would_change_and_changes_nothing(installed: QuickSite) -> None:
    for host in HOSTS:
        installed.run(host, "sh", "-c", "echo 'makestep 9 9' >> /etc/chrony/chrony.conf")
    before = [digest_of(installed, host) for host in HOSTS]
    told = json.loads(installed.operator("apply", "--bundle", installed.bundle, "--check",
                                         "--json").stdout)  # fmt: skip
    assert told["check"]
    assert all(told["changed"][host] >= 1 for host in HOSTS), told
    assert "makestep 9 9" in (Path(told["journal"]) / "ansible.log").read_text()
    assert [digest_of(installed, host) for host in HOSTS] == before
    mended = json.loads(installed.apply().stdout)
    assert all(mended["changed"][host] >= 1 for host in HOSTS), mended


def test_a_host_that_goes_away_is_named_and_mended_by_the_next_apply(
    installed: QuickSite,
) -> None:
    installed.run("serving-1", "sh", "-c", "rm -rf /opt/holdfast/environments/vllm-*")
    try:
        with Running(installed) as apply:
            apply.wait_for(lambda seen: came(seen, event="ok", host="serving-1", role="egress"))
            time.sleep(3)  # it now builds the environment again, which takes it a while
            installed.holdfast("lab", "down", "--name", NAME, "--host", "serving-1")
            assert apply.end() == 1, apply.printed()
    finally:
        installed.holdfast("lab", "up", "--name", NAME)
    record, events, printed = records(installed)[-1], apply.events(), apply.printed()
    assert record["outcome"] == "failed"
    assert list(dict(record["failed_hosts"])) == ["serving-1"]  # type: ignore[call-overload] # JSON
    assert came(events, event="unreachable", host="serving-1")
    assert came(events, event="ok", host="control-1", role="metrics")
    assert "the host went away" in printed
    assert "Apply did not finish on serving-1; finished as far as they could: control-1." in printed
    assert "run the same apply again" in printed
    assert '"outcome": "failed"' in printed
    installed.apply()
    assert answers(installed)
