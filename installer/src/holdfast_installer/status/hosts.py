"""Asks every host of a site what runs there, and says what should be otherwise."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast_installer.audit.vantage import on_hosts
from holdfast_installer.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Site

SUBJECT = "status"
SERVER = "holdfast-vllm@"


class _Seen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Unit(_Seen):
    """One systemd unit; `said` are the last lines of its log where it is not active."""

    unit: str
    state: str
    result: str
    restarts: int
    since: str
    said: tuple[str, ...]


class Replica(_Seen):
    """What a vLLM unit of the host is meant to serve."""

    unit: str
    model: str
    commit: str


class Checked(_Seen):
    """What came of measuring a model since the host started; no problems: it may be served."""

    model: str
    commit: str
    path: str
    checked: str
    seconds: float
    problems: tuple[str, ...]


class _Answer(_Seen):
    units: tuple[Unit, ...]
    replicas: tuple[Replica, ...]
    models: tuple[Checked, ...]


class HostStatus(_Seen):
    """One host; `problem` says why nothing was seen of it."""

    name: str
    problem: str = ""
    units: tuple[Unit, ...] = ()
    replicas: tuple[Replica, ...] = ()
    models: tuple[Checked, ...] = ()

    def unit(self, name: str) -> Unit | None:
        """Return the unit of that name."""
        return next((unit for unit in self.units if unit.unit == name), None)

    def refusal(self, replica: Replica) -> str:
        """Return why what a replica serves may not be served, as the host's check found."""
        problems = [
            problem
            for each in self.models
            if (each.model, each.commit) == (replica.model, replica.commit)
            for problem in each.problems
        ]
        return "; ".join(problems[:3])


class SiteStatus(_Seen):
    """What was seen of a site, and what of it needs somebody's attention."""

    site: str
    taken_at: str
    hosts: tuple[HostStatus, ...]
    findings: tuple[Finding, ...]


def take_status(site: Site) -> SiteStatus:
    """Ask all hosts side by side; a host that cannot be asked is a finding."""
    looks = on_hosts(site, SUBJECT, "serving", {host.name: {} for host in site.hosts})
    hosts = tuple(_host(look) for look in looks)
    return SiteStatus(
        site=site.name,
        taken_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        hosts=hosts,
        findings=tuple(findings(site, hosts)),
    )


def findings(site: Site, hosts: tuple[HostStatus, ...]) -> Iterator[Finding]:
    """Return what is not as it should be: hosts unread, units down, replicas missing."""
    running: Counter[str] = Counter()
    for host in hosts:
        if host.problem:
            yield Finding(
                name="host",
                verdict="error",
                host=host.name,
                detail=host.problem,
                fix="holdfast survey",
            )
            continue
        yield from _of_host(host)
        for replica in host.replicas:
            unit = host.unit(replica.unit)
            running[replica.model] += unit is not None and unit.state == "active"
    for model in site.models:
        wanted = model.replicas + model.standby + sum(pool.replicas for pool in model.pools)
        if running[model.id] < wanted:
            yield Finding(
                name=model.id,
                verdict="fail",
                detail=f"{running[model.id]} of {wanted} replicas run",
                fix="holdfast apply",
            )


def _of_host(host: HostStatus) -> Iterator[Finding]:
    served = {replica.unit: replica for replica in host.replicas}
    if not host.units:
        yield Finding(
            name="units",
            verdict="fail",
            host=host.name,
            detail="none of Holdfast's units is here",
            fix="holdfast apply",
        )
    for unit in host.units:
        if unit.state == "active":
            continue
        refusal = host.refusal(served[unit.unit]) if unit.unit in served else ""
        why = refusal or " / ".join(unit.said[-3:]) or unit.result
        what = f"{served[unit.unit].model} is not served: " if unit.unit in served else ""
        yield Finding(
            name=unit.unit,
            verdict="fail",
            host=host.name,
            detail=f"{what}{unit.state} ({unit.result}): {why}",
            fix="holdfast apply" if refusal else f"journalctl -u {unit.unit}",
        )


def _host(look: Observation) -> HostStatus:
    if look.problem:
        return HostStatus(name=look.host, problem=look.problem)
    try:
        seen = _Answer.model_validate(look.seen)
    except ValidationError as error:
        return HostStatus(name=look.host, problem=f"its answer is not what was asked for: {error}")
    return HostStatus(name=look.host, units=seen.units, replicas=seen.replicas, models=seen.models)
