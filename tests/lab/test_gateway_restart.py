"""A site under load, while its gateways are restarted and its edge is reloaded: nobody feels it.

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
HOST = "control-1"


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


def gateways(site: QuickSite) -> list[str]:
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "holdfast-gateway@*")
    return sorted(line.split()[0] for line in site.run(HOST, *listed).stdout.splitlines())


def main_process(site: QuickSite, unit: str) -> str:
    return site.run(HOST, "systemctl", "show", "--property=MainPID", "--value", unit).stdout.strip()


def under_load(site: QuickSite, progress: Path, fault: Callable[[], object]) -> dict[str, Any]:
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
        deadline = time.monotonic() + 120
        while not (progress.exists() and progress.stat().st_size >= REQUESTS // 6):
            assert time.monotonic() < deadline, "the load does not get under way"
            time.sleep(0.5)
        fault()
        assert running.poll() is None, "the load was over before the fault was"
        told: dict[str, Any] = json.loads(running.communicate(timeout=1200)[0])
    finally:
        running.terminate()
        running.wait()
    return told


def test_gateways_that_are_restarted_in_turn_are_not_felt(site: QuickSite, tmp_path: Path) -> None:
    units = gateways(site)
    assert len(units) > 1
    before = [main_process(site, unit) for unit in units]

    def restart() -> None:
        for unit in units:
            # The time that an apply may take for it, whatever streams there are.
            site.run(HOST, "timeout", "45", "systemctl", "restart", unit)

    told = under_load(site, tmp_path / "progress", restart)
    assert (told["failed"], told["broken"]) == ([], []), told
    after = [main_process(site, unit) for unit in units]
    assert not set(before) & set(after)


def test_an_edge_that_is_reloaded_is_not_felt(site: QuickSite, tmp_path: Path) -> None:
    def reload() -> None:
        for _ in range(3):
            site.run(HOST, "systemctl", "reload", "haproxy.service")

    told = under_load(site, tmp_path / "progress", reload)
    assert (told["failed"], told["broken"]) == ([], []), told


def test_a_killed_gateway_is_back_and_loses_only_what_it_had(
    site: QuickSite, tmp_path: Path
) -> None:
    victim = gateways(site)[0]
    kill = ("systemctl", "kill", "--signal=KILL", victim)
    told = under_load(site, tmp_path / "progress", lambda: site.run(HOST, *kill))
    assert len(told["failed"]) + len(told["broken"]) <= AT_ONCE, told
    state = site.run(HOST, "systemctl", "is-active", victim, check=False).stdout.strip()
    assert state == "active"
