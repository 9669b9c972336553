"""EGR-01: a host can open no connection to an address that its plan does not allow.

Each host sends a nonce to a canary of ours, over IPv4 and IPv6, TCP and UDP. An answer is a breach;
no answer alone proves nothing, so the same nonce must come back when sent from a place without the
filter, and the filter's own drop counter must have counted the host's attempts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.audit.probes.judgement import MEND_CANARY, SEE_WITNESS, Judgement
from holdfast_installer.audit.vantage import from_here, on_hosts, with_record

if TYPE_CHECKING:
    from pydantic import JsonValue

    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Canary, Host, Site

CONTROL = "EGR-01"
NEEDS_CANARY = True


class Attempt(BaseModel):
    """One try to get out."""

    model_config = ConfigDict(extra="forbid")

    target: str
    outcome: str
    detail: str


class Seen(BaseModel):
    """What scripts/egress.py prints; `recorded` is the canary's own record of the nonce."""

    model_config = ConfigDict(extra="forbid")

    attempts: list[Attempt]
    drops_before: int
    drops_after: int
    recorded: list[str] | None = None


def targets(canary: Canary) -> list[JsonValue]:
    """Return the four ways out: [family, protocol, address, port]."""
    return [
        [family, protocol, str(address), port]
        for family, address in (("ipv4", canary.ipv4), ("ipv6", canary.ipv6))
        for protocol, port in (("tcp", canary.tcp_port), ("udp", canary.udp_port))
    ]


def hosts(site: Site) -> tuple[Host, ...]:
    """Every host."""
    return site.hosts


def observe(site: Site, nonce: str) -> tuple[Observation, ...]:
    """Try the canary from every host, then from here, where nothing should filter."""
    canary = site.canary
    if canary is None:
        return ()
    ways = targets(canary)
    tries: dict[str, JsonValue] = {
        host.name: {"nonce": f"{nonce}.{host.name}", "targets": ways, "counter": True}
        for host in site.hosts
    }
    looks = on_hosts(site, CONTROL, "egress", tries)
    control = from_here(
        CONTROL,
        "egress",
        {"nonce": f"{nonce}.operator", "targets": ways, "counter": False},
    )
    return tuple(
        with_record(look, canary.witness, f"{nonce}.{look.host}") for look in (*looks, control)
    )


def control_flaw(control: Observation | None) -> str:
    """Say why the positive control cannot be relied on; empty where it can."""
    if control is None or control.problem:
        return f"the positive control did not run: {control.problem if control else 'not asked'}"
    seen = Seen.model_validate(control.seen)
    silent = [one.target for one in seen.attempts if one.outcome != "answered"]
    if silent or not seen.attempts:
        return f"the canary does not answer the operator either ({', '.join(silent) or 'no tries'})"
    if not seen.recorded:
        return "the canary's own record cannot be read or missed the operator's nonce"
    return ""


def judge(look: Observation, flaw: str) -> Judgement:
    """Judge one host; `flaw` is what is wrong with the positive control."""
    seen = Seen.model_validate(look.seen)
    out = [one.target for one in seen.attempts if one.outcome in {"answered", "error"}]
    apply_again = "holdfast apply loads the filter again"
    if out:
        return Judgement("fail", f"reached the canary: {', '.join(out)}", apply_again)
    if seen.recorded:
        return Judgement("fail", f"the canary saw the host: {seen.recorded[0]}", apply_again)
    if seen.drops_before < 0 or seen.drops_after < 0:
        return Judgement("fail", "no egress filter is loaded on the host", apply_again)
    unrouted = [one.target for one in seen.attempts if one.outcome == "no-route"]
    if unrouted:
        return Judgement(
            "inconclusive",
            f"no route to {', '.join(unrouted)}: the filter was not put to the test",
            "give the host a default route, so that the filter and not luck keeps it in",
        )
    if seen.recorded is None:
        return Judgement("inconclusive", "the canary's record cannot be read", SEE_WITNESS)
    if flaw:
        return Judgement("inconclusive", flaw, MEND_CANARY)
    counted = seen.drops_after - seen.drops_before
    if counted < len(seen.attempts):
        return Judgement(
            "inconclusive",
            f"{len(seen.attempts)} attempts, but the filter counted {counted}: something else "
            "stopped them",
        )
    return Judgement(
        "pass",
        "TCP and UDP over IPv4 and IPv6: nothing got out, and the filter counted each attempt",
    )
