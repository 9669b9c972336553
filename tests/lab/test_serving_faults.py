"""What a vLLM unit does when it is killed, or when its engine hangs behind a listening server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from quick_site import QuickSite, quickstart

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

HOST = "serving-1"
ENGINE = "VLLM::EngineCore"


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


def unit_of(site: QuickSite) -> str:
    """Return the first vLLM unit of the host."""
    listed = ("systemctl", "list-units", "--plain", "--no-legend", "holdfast-vllm@*")
    return site.run(HOST, *listed).stdout.split()[0]


def engines(site: QuickSite) -> set[str]:
    return set(site.run(HOST, "pgrep", "-f", f"^{ENGINE}", check=False).stdout.split())


def property_of(site: QuickSite, unit: str, name: str) -> str:
    return site.run(HOST, "systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()


def generates(site: QuickSite, unit: str) -> bool:
    """Tell whether the unit's own watch saw a token of the present start."""
    watch = unit.replace("holdfast-vllm@", "holdfast-vllm-watch@")
    site.run(HOST, "systemctl", "start", watch, check=False)
    seen = site.run(HOST, "cat", f"/run/holdfast-vllm-watch/{unit}", check=False).stdout
    return seen == property_of(site, unit, "InvocationID")


def within(seconds: float, what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(2)
    return False


def test_a_killed_server_leaves_no_engine_behind_and_comes_back(site: QuickSite) -> None:
    unit = unit_of(site)
    assert within(300, lambda: generates(site, unit))
    before, start = engines(site), property_of(site, unit, "InvocationID")
    assert before
    site.run(HOST, "kill", "-KILL", property_of(site, unit, "MainPID"))
    assert within(30, lambda: not before & engines(site))
    # Until systemd starts it again, the unit still carries the number of the start that was killed.
    assert within(60, lambda: property_of(site, unit, "InvocationID") not in {start, ""})
    assert within(300, lambda: generates(site, unit))


def test_an_engine_that_hangs_behind_a_listening_server_is_restarted(site: QuickSite) -> None:
    unit = unit_of(site)
    assert within(300, lambda: generates(site, unit))
    start = property_of(site, unit, "InvocationID")
    site.run(HOST, "pkill", "-STOP", "-f", f"^{ENGINE}")
    assert within(300, lambda: property_of(site, unit, "InvocationID") not in {start, ""})
    assert within(300, lambda: generates(site, unit))
    watch = unit.replace("holdfast-vllm@", "holdfast-vllm-watch@")
    said = site.run(HOST, "journalctl", "--unit", watch, "--output", "cat", "--lines", "200").stdout
    assert "does not generate and is restarted" in said
