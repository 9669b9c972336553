"""A site under load, while a replica is killed with -9 and then one is frozen: nobody feels it.

HOLDFAST_AVAILABILITY_REQUESTS says how many requests are made for each; 240 unless it does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import availability_load
import pytest
from quick_site import ROOT, STARTER, QuickSite, environment, quickstart

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

REQUESTS = int(os.environ.get("HOLDFAST_AVAILABILITY_REQUESTS", "240"))
AT_ONCE = 16
TTFT_SECONDS = 10  # the gateway's default
HOST = "serving-1"
READINESS = "http://127.0.0.1:8200/readiness"


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


def unit_of(site: QuickSite) -> str:
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "holdfast-vllm@*")
    return site.run(HOST, *listed).stdout.split()[0]


def healthy(site: QuickSite) -> int:
    """Return how many replicas the balancer of the pool would use."""
    asked = f"from urllib.request import urlopen as ask; print(ask({READINESS!r}).read().decode())"
    done = site.run("control-1", "python3", "-c", asked, check=False)
    try:
        return int(json.loads(done.stdout)["healthy_workers"])
    except (ValueError, KeyError):
        return 0


def within(seconds: float, what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(2)
    return False


def load_on(site: QuickSite, progress: Path, fault: Callable[[], object]) -> dict[str, Any]:
    """Put the load on, do the fault after a sixth of it, and return what the load tells."""
    settings = {
        "OPENAI_BASE_URL": f"https://api.{site.domain}/v1",
        "OPENAI_API_KEY": site.token,
        "SSL_CERT_FILE": site.ca,
    }
    program = [sys.executable, availability_load.__file__, STARTER, str(REQUESTS), str(AT_ONCE)]
    pairs = [f"{name}={value}" for name, value in settings.items()]
    command = site.inside("researcher", "env", *pairs, *program, str(progress))
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    try:
        begun = REQUESTS // 6
        assert within(120, lambda: progress.exists() and progress.stat().st_size >= begun)
        fault()
        told: dict[str, Any] = json.loads(running.communicate(timeout=1200)[0])
    finally:
        running.terminate()
        running.wait()
    return told


def signal(site: QuickSite, name: str) -> None:
    """Send a signal to all processes of the replica."""
    site.run(HOST, "systemctl", "kill", f"--signal={name}", unit_of(site))


def test_a_killed_replica_is_not_felt(site: QuickSite, tmp_path: Path) -> None:
    assert within(300, lambda: healthy(site) == 2)
    told = load_on(site, tmp_path / "progress", lambda: signal(site, "KILL"))
    assert (told["failed"], told["broken"]) == ([], []), told
    assert told["ttft_p99"] < TTFT_SECONDS + 2, told


def test_a_frozen_replica_is_not_felt(site: QuickSite, tmp_path: Path) -> None:
    assert within(300, lambda: healthy(site) == 2)
    try:
        told = load_on(site, tmp_path / "progress", lambda: signal(site, "STOP"))
    finally:
        signal(site, "CONT")
    assert (told["failed"], told["broken"]) == ([], []), told
    assert told["ttft_p99"] < TTFT_SECONDS + 2, told
    assert within(300, lambda: healthy(site) == 2)
