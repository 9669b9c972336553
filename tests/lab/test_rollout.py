"""Another revision and other numbers of replicas under constant load: no request fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from quick_site import HOLDFAST, ROOT, STARTER, QuickSite, environment, quickstart

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(2400)]

NAME = "rollout"
HOSTS = ("control-1", "serving-1")
WIDTH = 4
LOAD = Path(__file__).with_name("rollout_load.py")


@dataclass
class Loaded:
    """What came of the load; filled when it has ended."""

    told: dict[str, Any]


@pytest.fixture(scope="module")
def site() -> Iterator[QuickSite]:
    """Install one replica of a starter model whose folder is ours to change."""
    made = ROOT / "build/quickstart/bundle"
    if not (made / "manifest.json").exists():
        quickstart()
    rolled = QuickSite(NAME, ROOT / "build" / NAME, {})
    shutil.rmtree(rolled.folder, ignore_errors=True)
    starter = rolled.folder / "starter"
    shutil.copytree(ROOT / "model-registry/starter/holdfast-starter", starter)
    shutil.copytree(made, rolled.bundle, copy_function=os.link)
    rolled.holdfast("lab", "down", "--name", NAME)
    try:
        rolled.holdfast("lab", "up", "--name", NAME, "--hosts", ",".join(HOSTS))
        rolled.holdfast(
            *("init", "--lab", NAME, "--jurisdiction", "de", "--replicas", "1"),
            *("--model", f"{STARTER}={starter}", "--team", "research=ada"),
            *("--output", rolled.site_file),
        )
        build(rolled)
        rolled.apply()
        token, ca = rolled.folder / "token", rolled.folder / "ca.pem"
        rolled.operator("token", "issue", "ada", "--output", str(token))
        rolled.operator("ca", "--output", str(ca))
        rolled.printed.update(token=token.read_text().strip(), ca=str(ca))
        yield rolled
    finally:
        rolled.holdfast("lab", "down", "--name", NAME)
        shutil.rmtree(rolled.bundle)


def build(site: QuickSite) -> None:
    """Lock and build the bundle anew, with the model's folder as it is now."""
    lock = str(site.folder / "bundle.lock")
    site.holdfast("bundle", "lock", "--site", site.site_file, "--output", lock)
    site.holdfast("bundle", "build", "--lock", lock, "--output", site.bundle)


def another_revision(site: QuickSite) -> None:
    """Make another commit of the model: its card says one line more."""
    card = site.folder / "starter" / "README.md"
    card.write_text(card.read_text() + f"\nRevised at {time.time_ns()}.\n")
    build(site)


@contextlib.contextmanager
def load(site: QuickSite) -> Iterator[Loaded]:
    """Ask the site all the time, half of it streams, until the block ends."""
    stop, loaded = site.folder / "stop", Loaded({})
    stop.unlink(missing_ok=True)
    settings = {
        "OPENAI_BASE_URL": f"https://api.{site.domain}/v1",
        "OPENAI_API_KEY": site.token,
        "SSL_CERT_FILE": site.ca,
    }
    pairs = [f"{name}={value}" for name, value in settings.items()]
    command = ("env", *pairs, sys.executable, str(LOAD), STARTER, str(WIDTH), str(stop))
    running = subprocess.Popen(
        site.inside("researcher", *command),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    try:
        time.sleep(5)
        yield loaded
        time.sleep(5)
    finally:
        stop.touch()
        loaded.told.update(json.loads(running.communicate(timeout=180)[0]))


def unharmed(loaded: Loaded) -> None:
    told = loaded.told
    assert told["failed"] == []
    assert told["broken"] == []
    assert told["requests"] > 20, told
    assert told["streams"] > 10, told


def units(site: QuickSite) -> list[str]:
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "holdfast-vllm@*")
    lines = site.run("serving-1", *listed).stdout.splitlines()
    return sorted(line.split()[0] for line in lines)


def settled(site: QuickSite) -> None:
    """See that the next apply has nothing left to do to any replica."""
    told = json.loads(site.apply("--capability", "vllm", "--capability", "load_balancer").stdout)
    assert told["changed"]["serving-1"] == 0
    assert told["failed_hosts"] == {}


def test_another_revision_breaks_no_request(site: QuickSite) -> None:
    before = units(site)
    assert len(before) == 1
    another_revision(site)
    with load(site) as loaded:
        site.apply()
    unharmed(loaded)
    after = units(site)
    assert len(after) == 1
    assert after != before
    settled(site)


def test_a_rollout_by_a_canary_breaks_no_request(site: QuickSite) -> None:
    before = units(site)
    another_revision(site)
    with load(site) as loaded:
        bundle = ("--bundle", site.bundle, "--json")
        told = json.loads(
            # a shared machine's moods are not what is tested here
            site.operator("rollout", STARTER, *bundle, "--live", "20", "--ttft-ratio", "20").stdout
        )
    assert told["outcome"] == "rolled out", told
    unharmed(loaded)
    assert len(units(site)) == 1
    assert units(site) != before


def test_a_canary_that_is_worse_is_taken_back(site: QuickSite) -> None:
    before = units(site)
    text = Path(site.site_file).read_text()
    # too short for what is asked: the canary refuses a prompt that its predecessor answers
    worse = text.replace("    vllm: {}", "    vllm: {max_model_len: 64}")
    assert worse != text
    Path(site.site_file).write_text(worse)
    prompts = site.folder / "prompts.txt"
    prompts.write_text("What is Holdfast?\n" + "What is Holdfast? " * 20 + "\n")
    try:
        with load(site) as loaded:
            done = site.operator(
                *("rollout", STARTER, "--bundle", site.bundle, "--prompts", str(prompts)),
                *("--json", "--ttft-ratio", "20"),
                check=False,
            )
        unharmed(loaded)
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)
        assert told["outcome"] == "taken back"
        assert [one["name"] for one in told["findings"]] == ["prompt-errors"]
        assert "HTTP 400" in done.stderr
        assert units(site) == before
    finally:
        Path(site.site_file).write_text(text)
    settled(site)


def test_scaling_up_and_down_breaks_no_request(site: QuickSite) -> None:
    (first,) = units(site)
    with load(site) as loaded:
        bundle = ("--bundle", site.bundle, "--json")
        up = json.loads(site.operator("scale", STARTER, "2", *bundle).stdout)
        both = units(site)
        down = json.loads(site.operator("scale", STARTER, "1", *bundle).stdout)
    unharmed(loaded)
    assert first in both
    assert len(both) == 2
    assert units(site) == [first]
    assert up["starting"]["serving-1"] == [
        unit.removeprefix("holdfast-vllm@").removesuffix(".service")
        for unit in both
        if unit != first
    ]
    assert down["stopping"]["serving-1"] == up["starting"]["serving-1"]


def test_a_rollout_that_is_killed_goes_on_with_the_next_apply(site: QuickSite) -> None:
    (first,) = units(site)
    another_revision(site)
    with load(site) as loaded:
        command = [*site.inside("operator", HOLDFAST, "apply"), "--site", site.site_file]
        killed = subprocess.Popen(
            [*command, "--bundle", site.bundle, "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )
        deadline = time.monotonic() + 600
        while len(units(site)) < 2:
            assert time.monotonic() < deadline
            assert killed.poll() is None
            time.sleep(0.5)
        killed.kill()
        killed.wait()
        site.apply()
    unharmed(loaded)
    (last,) = units(site)
    assert last != first
    settled(site)
