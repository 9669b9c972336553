"""DNS-01: hosts resolve the site's own names and no others, by whatever way they ask.

A random label is asked for through the host's resolver and straight at the canary's name server, on
every port that carries DNS. The canary's record must stay empty; the same question asked from where
nothing filters must be answered and recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.audit.probes.egress import Attempt
from holdfast_installer.audit.probes.judgement import MEND_CANARY, SEE_WITNESS, Judgement
from holdfast_installer.audit.vantage import from_here, on_hosts, with_record

if TYPE_CHECKING:
    from pydantic import JsonValue

    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Host, Site

CONTROL = "DNS-01"
NEEDS_CANARY = True


class Seen(BaseModel):
    """What scripts/names.py prints; `recorded` is the canary's own record of the label."""

    model_config = ConfigDict(extra="forbid")

    resolver: str
    inside: tuple[str, str]
    attempts: list[Attempt]
    recorded: list[str] | None = None


def hosts(site: Site) -> tuple[Host, ...]:
    """Every host."""
    return site.hosts


def observe(site: Site, nonce: str) -> tuple[Observation, ...]:
    """Ask from every host, then from here."""
    canary = site.canary
    if canary is None:
        return ()
    addresses: list[JsonValue] = [str(canary.ipv4), str(canary.ipv6)]

    def argument(host: str) -> dict[str, JsonValue]:
        return {
            "label": f"{nonce}-{host}.example.org",
            "inside": f"hub.{site.domain}",
            "canaries": addresses,
        }

    looks = on_hosts(
        site, CONTROL, "names", {host.name: argument(host.name) for host in site.hosts}
    )
    control = from_here(CONTROL, "names", argument("operator"))
    return tuple(
        with_record(look, canary.witness, f"{nonce}-{look.host}") for look in (*looks, control)
    )


def control_flaw(control: Observation | None) -> str:
    """Say why the positive control cannot be relied on; empty where it can."""
    if control is None or control.problem:
        return f"the positive control did not run: {control.problem if control else 'not asked'}"
    seen = Seen.model_validate(control.seen)
    direct = [one for one in seen.attempts if one.target.endswith(":53")]
    if not any(one.outcome == "answered" for one in direct):
        return "the canary's name server does not answer the operator either"
    if not seen.recorded:
        return "the canary's own record cannot be read or missed the operator's question"
    return ""


def judge(look: Observation, flaw: str) -> Judgement:
    """Judge one host; `flaw` is what is wrong with the positive control."""
    seen = Seen.model_validate(look.seen)
    answered = [
        f"{one.target} ({one.detail})"
        for one in seen.attempts
        if one.outcome in {"answered", "absent"}
    ]
    if answered:
        return Judgement(
            "fail",
            f"an outside name was looked up by {', '.join(answered)}",
            "holdfast apply configures the resolver and the filter again",
        )
    if seen.recorded:
        return Judgement("fail", f"the canary saw the question: {seen.recorded[0]}")
    if not seen.resolver:
        return Judgement("fail", "the host has no resolver", "holdfast apply")
    if seen.inside[0] != "answered":
        return Judgement(
            "inconclusive",
            f"the resolver {seen.resolver} does not answer for the site's own name "
            f"({seen.inside[1]}), so its silence on others proves nothing",
            "holdfast apply",
        )
    if seen.recorded is None:
        return Judgement("inconclusive", "the canary's record cannot be read", SEE_WITNESS)
    if flaw:
        return Judgement("inconclusive", flaw, MEND_CANARY)
    return Judgement(
        "pass",
        f"{len(seen.attempts)} ways to ask for an outside name, none answered, none seen outside",
    )
