"""Starts the child that reads the hosts, and makes facts of what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any  # Any: the child's JSON

from holdfast_installer.errors import HoldfastError
from holdfast_installer.survey import gpus, parse
from holdfast_installer.survey.facts import UNREAD, Clock, HostFacts, HostKey, Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.site import Site

CHILD = "holdfast_installer.survey.child"

PARSERS: dict[str, Callable[[list[str]], object]] = {
    "os": parse.os_release,
    "kernel": parse.kernel,
    "cpu": parse.cpuinfo,
    "numa": parse.numa,
    "memory": parse.meminfo,
    "mounts": parse.mounts,
    "interfaces": parse.interfaces,
    "gpus": gpus.gpus,
    "listeners": parse.listeners,
    "power": parse.power,
    "releases": parse.releases,
    "replicas": parse.replicas,
    "apply_lock": parse.apply_lock,
}


def take_survey(site: Site) -> Survey:
    """Read every host of the site at once; a host that cannot be read says why in its facts."""
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    request = {
        "ssh": site.ssh.model_dump(mode="json"),
        "hosts": [{"name": host.name, "address": str(host.address)} for host in site.hosts],
    }
    done = subprocess.run(
        [sys.executable, "-m", CHILD],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answers = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise HoldfastError(
            "The survey ended before it answered.",
            where=CHILD,
            cause=done.stderr.strip()[-2000:] or f"exit code {done.returncode}",
            next_command="holdfast survey --site site.yml",
        ) from error
    return Survey(
        site=site.name,
        taken_at=taken_at,
        hosts=tuple(
            read_answer(host.name, str(host.address), answers.get(host.name)) for host in site.hosts
        ),
    )


def read_answer(name: str, address: str, answer: dict[str, Any] | None) -> HostFacts:
    """Make facts of one host's answer; what is missing or not understood is unread."""
    if answer is None:
        return HostFacts(name=name, address=address, reach="error", detail="no answer")
    if answer["reach"] != "read":
        return HostFacts(name=name, address=address, reach=answer["reach"], detail=answer["detail"])
    facts: dict[str, object] = {}
    remarks: list[str] = []
    for fact, parser in PARSERS.items():
        lines = answer["lines"].get(fact)
        if lines is None:
            remarks.append(f"{fact}: the host did not answer it")
            continue
        try:
            facts[fact] = parser(lines)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            remarks.append(f"{fact}: not understood ({error})")
    facts["clock"] = _clock(answer)
    facts["host_key"] = HostKey(**answer["host_key"]) if answer.get("host_key") else UNREAD
    return HostFacts.model_validate(
        {"name": name, "address": address, "reach": "read", "detail": "; ".join(remarks), **facts}
    )


def _clock(answer: dict[str, Any]) -> Clock | str:
    lines, seen = answer["lines"].get("clock"), answer.get("clock") or {}
    if not lines or "before" not in seen:
        return UNREAD
    try:
        there = float(lines[0])
    except ValueError:
        return UNREAD
    middle = (seen["before"] + seen["after"]) / 2
    return Clock(
        offset_seconds=round(there - middle, 6),
        doubt_seconds=round((seen["after"] - seen["before"]) / 2, 6),
    )
