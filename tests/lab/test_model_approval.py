"""A model in quarantine is served by no path, whatever ran before; approved, it comes back."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from quick_site import STARTER, QuickSite, quickstart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

HOST = "serving-1"
WHY = "held for practice"
ASK = """
import openai
try:
    openai.OpenAI(max_retries=0, timeout=20).completions.create(
        model="holdfast/starter", prompt="What", max_tokens=1)
    print("answered")
except openai.APIError as error:
    print("refused", type(error).__name__)
"""
# The client takes what it is told of a file's head for a cause, and prints the registry's warning.
PULL = """
import sys
from huggingface_hub import snapshot_download
from huggingface_hub.errors import DisabledRepoError, LocalEntryNotFoundError
try:
    snapshot_download("holdfast/starter", cache_dir=sys.argv[1])
    print("pulled")
except (DisabledRepoError, LocalEntryNotFoundError) as error:
    told = error if isinstance(error, DisabledRepoError) else error.__cause__
    print("refused" if isinstance(told, DisabledRepoError) else "failed", repr(told))
"""


@pytest.fixture(scope="module")
def site() -> QuickSite:
    return quickstart()


@pytest.fixture
def quarantined(site: QuickSite) -> Iterator[str]:
    """Quarantine the starter model while it is served; yields its unit."""
    unit = site.run(
        HOST, "systemctl", "list-units", "--plain", "--no-legend", "holdfast-vllm@*"
    ).stdout.split()[0]
    assert within(300, lambda: active(site, unit))
    site.operator("model", "quarantine", STARTER, "--note", WHY)
    yield unit
    site.operator("model", "approve", STARTER)
    assert within(300, lambda: active(site, unit))


def active(site: QuickSite, unit: str) -> bool:
    return site.run(HOST, "systemctl", "is-active", unit, check=False).stdout.strip() == "active"


def log_of(site: QuickSite, unit: str) -> str:
    lines = ("--output", "cat", "--lines", "50", "--unit", unit)
    return site.run(HOST, "journalctl", *lines).stdout


def within(seconds: float, what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(2)
    return False


def test_what_was_installed_is_approved_by_whoever_brought_it_in(site: QuickSite) -> None:
    listed = json.loads(site.operator("model", "list", "--json").stdout)
    (item,) = [each for each in listed if each["id"] == STARTER and each["state"] == "approved"]
    shown = json.loads(site.operator("model", "show", STARTER, "--json").stdout)
    assert shown["commit"] == item["commit"]
    assert shown["approved_digest"] == shown["digest"]
    assert "@" in shown["approvals"][0]["by"]


def test_a_model_in_quarantine_is_served_by_no_path(
    site: QuickSite, quarantined: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unit = quarantined
    # The unit that ran it is taken off at once, and its own log says why.
    assert within(120, lambda: not active(site, unit))
    assert within(30, lambda: WHY in log_of(site, unit))
    assert "it is quarantined, not approved" in log_of(site, unit)
    # Nobody gets it to run again: not by hand, not by a restart of what is on the disk.
    site.run(HOST, "systemctl", "restart", unit, check=False)
    time.sleep(5)
    assert not active(site, unit)
    # Not by an apply, which says what to do.
    applied = site.operator(
        "apply", "--bundle", site.bundle, "--capability", "vllm", "--json", check=False
    )
    assert applied.returncode == 1
    assert "not approved" in applied.stderr
    assert f"holdfast model approve {STARTER}" in applied.stderr.replace("\n", " ")
    assert not active(site, unit)
    # Not by pulling it: neither the host nor a reader gets the files.
    node = site.run(HOST, "cat", "/etc/holdfast/vllm/token").stdout.strip()
    for token in (node, None):
        folder = str(tmp_path_factory.mktemp("cache"))
        said = site.researcher(PULL, folder, token=token)
        assert said.stdout.startswith("refused"), said.stdout
        assert "is quarantined" in said.stderr
    # Not through the gateway.
    assert site.researcher(ASK).stdout.startswith("refused")
    # And the operator is told.
    status = site.operator("status", "--json", check=False)
    assert status.returncode == 3
    assert WHY in status.stdout


def test_once_approved_again_it_answers(site: QuickSite) -> None:
    assert within(300, lambda: site.researcher(ASK).stdout.strip() == "answered")
    history = json.loads(site.operator("model", "show", STARTER, "--json").stdout)["history"]
    assert [each["to"] for each in history][-2:] == ["quarantined", "approved"]
    assert history[-2]["note"] == WHY
