"""A flipped byte of the weights keeps vLLM from starting; its log and `holdfast status` say why."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from quick_site import QuickSite, quickstart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

HOST = "serving-1"


@pytest.fixture(scope="module")
def site() -> Iterator[QuickSite]:
    quick = quickstart()
    yield quick
    quick.apply()


def unit_of(site: QuickSite) -> str:
    listed = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "holdfast-vllm@*")
    return site.run(HOST, *listed).stdout.split()[0]


def spec_of(site: QuickSite, unit: str) -> dict[str, Any]:
    """Return what the role wrote for the unit: model, commit, path and files."""
    name = unit.removeprefix("holdfast-vllm@").removesuffix(".service")
    found: dict[str, Any] = json.loads(
        site.run(HOST, "cat", f"/etc/holdfast/vllm/{name}.json").stdout
    )
    return found


def state_of(site: QuickSite, unit: str, name: str = "ActiveState") -> str:
    return site.run(HOST, "systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()


def note_of(site: QuickSite, spec: dict[str, Any]) -> dict[str, Any]:
    path = f"/run/holdfast-model/{spec['model'].replace('/', '--')}@{spec['commit']}.json"
    found: dict[str, Any] = json.loads(site.run(HOST, "cat", path).stdout)
    return found


def within(seconds: float, what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(2)
    return False


def status(site: QuickSite) -> tuple[int, dict[str, Any]]:
    done = site.operator("status", "--json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_server_that_crashed_starts_again_without_reading_the_model_anew(site: QuickSite) -> None:
    unit = unit_of(site)
    assert within(300, lambda: state_of(site, unit) == "active")
    note, start = note_of(site, spec_of(site, unit)), state_of(site, unit, "InvocationID")
    assert note["problems"] == []
    site.run(HOST, "kill", "-KILL", state_of(site, unit, "MainPID"))
    assert within(60, lambda: state_of(site, unit, "InvocationID") not in {start, ""})
    assert within(60, lambda: state_of(site, unit) == "active")
    assert note_of(site, spec_of(site, unit)) == note


def test_a_flipped_byte_keeps_the_unit_down_and_everybody_is_told_why(site: QuickSite) -> None:
    unit = unit_of(site)
    assert within(300, lambda: status(site)[0] == 0), status(site)[1]["findings"]
    spec = spec_of(site, unit)
    weights = next(name for name in spec["files"] if name.endswith(".safetensors"))
    path, middle = f"{spec['path']}/{weights}", spec["files"][weights]["size"] // 2
    read = f"dd if={path} bs=1 skip={middle} count=1 status=none | od -An -tu1"
    byte = int(site.run(HOST, "sh", "-c", read).stdout)
    times = f"touch -r {path} /run/before"
    write = f"printf '\\{byte ^ 1:03o}' | dd of={path} bs=1 seek={middle} conv=notrunc status=none"
    # Size and times stay as they were: only the content tells, and the change itself.
    site.run(HOST, "sh", "-c", f"{times} && {write} && touch -r /run/before {path}")

    site.run(HOST, "systemctl", "restart", unit, check=False)
    assert within(60, lambda: state_of(site, unit, "Result") == "exec-condition")
    assert state_of(site, unit) == "inactive"
    why = f"{weights} was altered: it is sha256:"
    log = site.run(HOST, "journalctl", "--unit", unit, "--lines", "40", "--output", "cat").stdout
    assert why in log
    assert f"{spec['model']}@{spec['commit'][:12]} is not served" in log
    assert site.run(HOST, "pgrep", "-f", "^VLLM::EngineCore", check=False).stdout == ""
    time.sleep(10)
    assert state_of(site, unit) == "inactive", "it was tried again"

    code, seen = status(site)
    assert code == 3
    (finding,) = [each for each in seen["findings"] if each["name"] == unit]
    assert finding["host"] == HOST
    assert why in finding["detail"]
    done = site.operator("model", "verify", spec["model"], "--json", check=False)
    links = {link["name"]: link for link in json.loads(done.stdout)["links"]}
    assert (done.returncode, links["served"]["verdict"]) == (3, "fail")
    assert why in links["served"]["detail"]
    assert links["digests"]["verdict"] == "pass"  # the registry's own copy is whole

    site.apply()
    assert within(300, lambda: state_of(site, unit) == "active")
    assert note_of(site, spec)["problems"] == []
    assert within(60, lambda: status(site)[0] == 0), status(site)[1]["findings"]
    assert site.operator("model", "verify", spec["model"]).returncode == 0
