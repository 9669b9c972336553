"""One audit: every control's probe on every host it speaks of, verdicts and evidence."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from pydantic import ValidationError

from holdfast_installer.audit.evidence import AuditResult, Observation
from holdfast_installer.audit.probes import egress, names, packages, telemetry, transport
from holdfast_installer.errors import Finding, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_installer.audit.probes.judgement import Judgement
    from holdfast_installer.site import Host, Site

OPERATOR = "operator"


class Probe(Protocol):
    """What a probe module offers; `judge` is pure and knows one host at a time."""

    CONTROL: str
    NEEDS_CANARY: bool

    def hosts(self, site: Site) -> tuple[Host, ...]:
        """Return the hosts that need a verdict."""

    def observe(self, site: Site, nonce: str) -> tuple[Observation, ...]:
        """Look, from every vantage the control asks for."""

    def control_flaw(self, control: Observation | None) -> str:
        """Say what is wrong with the positive control; empty where nothing is."""

    def judge(self, look: Observation, flaw: str) -> Judgement:
        """Judge what one host showed."""


PROBES: tuple[Probe, ...] = (egress, names, telemetry, transport, packages)


def audit(site: Site, controls: Iterable[str] = ()) -> AuditResult:
    """Observe the named controls (all, where none is named) and judge them."""
    wanted = set(controls)
    chosen = [probe for probe in PROBES if not wanted or probe.CONTROL in wanted]
    nonce = secrets.token_hex(8)
    began = datetime.now(UTC)
    with ThreadPoolExecutor(max_workers=len(chosen) or 1) as pool:
        looks = list(
            pool.map(
                lambda probe: _observe(probe, site, f"{nonce}{probe.CONTROL[:3].lower()}"), chosen
            )
        )
    verdicts = [
        finding
        for probe, seen in zip(chosen, looks, strict=True)
        for finding in verdicts_of(probe, site, seen)
    ]
    return AuditResult(
        site=site.name,
        nonce=nonce,
        began_at=began,
        ended_at=datetime.now(UTC),
        verdicts=tuple(verdicts),
        observations=tuple(look for seen in looks for look in seen),
    )


def _observe(probe: Probe, site: Site, nonce: str) -> tuple[Observation, ...]:
    """Look; a probe that breaks is an observation that failed, and does not take the others along.

    What hosts print is not ours to trust: any shape may come.
    """
    if probe.NEEDS_CANARY and site.canary is None:
        return ()
    try:
        return probe.observe(site, nonce)
    except (HoldfastError, OSError, ValueError, LookupError, TypeError) as error:
        problem = f"the probe broke: {type(error).__name__}: {str(error)[:300]}"
        return tuple(
            Observation(
                control=probe.CONTROL,
                vantage=OPERATOR,
                host=host.name,
                taken_at=datetime.now(UTC),
                script="",
                seen=None,
                problem=problem,
            )
            for host in probe.hosts(site)
        )


def _flaw(probe: Probe, control: Observation | None) -> str:
    try:
        return probe.control_flaw(control)
    except ValidationError as error:
        return f"the positive control is not of the probe's shape: {error}"


def verdicts_of(
    probe: Probe, site: Site, observations: tuple[Observation, ...]
) -> tuple[Finding, ...]:
    """Return one verdict per host; a host without an observation is an error, never a pass."""
    by_host = {look.host: look for look in observations}
    flaw = "" if site.canary is None else _flaw(probe, by_host.get(OPERATOR))
    return tuple(
        _verdict(probe, site, host, by_host.get(host.name), flaw) for host in probe.hosts(site)
    )


def _verdict(probe: Probe, site: Site, host: Host, look: Observation | None, flaw: str) -> Finding:
    if probe.NEEDS_CANARY and site.canary is None:
        return Finding(
            name=probe.CONTROL,
            verdict="not-run",
            host=host.name,
            detail="site.yml names no canary, so nothing can be seen to leave or to stay",
            fix="add canary: {ipv4, ipv6, witness} of a machine of yours outside the site",
        )
    if look is None or look.problem:
        return Finding(
            name=probe.CONTROL,
            verdict="error",
            host=host.name,
            detail=look.problem if look else "the host was not observed",
        )
    try:
        verdict, detail, fix = probe.judge(look, flaw)
    except ValidationError as error:
        verdict, detail, fix = "error", f"the observation is not of the probe's shape: {error}", ""
    return Finding(name=probe.CONTROL, verdict=verdict, host=host.name, detail=detail, fix=fix)
