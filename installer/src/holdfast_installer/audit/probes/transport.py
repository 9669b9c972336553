"""TLS-01: what a host offers to others, it offers over TLS 1.2 or newer only.

Every TCP port that is not bound to loopback is spoken to in plain HTTP and with TLS 1.1. The ports
are read from the running host, not from the plan, so that a listener nobody planned is found too.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from cryptography import x509
from pydantic import BaseModel, ConfigDict

from holdfast_installer.audit.probes.judgement import Judgement
from holdfast_installer.audit.vantage import on_hosts

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Host, Site

CONTROL = "TLS-01"
NEEDS_CANARY = False
DNS_PORT = 53
RENEWAL_DAYS = 30  # an apply renews what has less; nothing else does
GOOD_VERSIONS = {"TLSv1.2", "TLSv1.3"}
# A server that demands a client certificate refuses the probe, which has none: TLS all the same.
DEMANDS_CERTIFICATE = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")


class Listener(BaseModel):
    """One reachable port and how it answered."""

    model_config = ConfigDict(extra="forbid")

    address: str
    port: int
    plain: str
    tls: str
    old_tls: str
    certificate: str = ""  # DER in base64; empty where the handshake did not come so far


class Seen(BaseModel):
    """What scripts/listeners.py prints."""

    model_config = ConfigDict(extra="forbid")

    listeners: list[Listener]
    old_tls_works: bool


def hosts(site: Site) -> tuple[Host, ...]:
    """Every host."""
    return site.hosts


def observe(site: Site, nonce: str) -> tuple[Observation, ...]:
    """Speak to every reachable port of every host."""
    del nonce
    return on_hosts(
        site,
        CONTROL,
        "listeners",
        {host.name: {"plain": [site.ssh.port, DNS_PORT]} for host in site.hosts},
    )


def control_flaw(control: Observation | None) -> str:
    """Find nothing: the positive control is in each host's own answer."""
    del control
    return ""


def judge(look: Observation, flaw: str) -> Judgement:
    """Judge one host; this probe's positive control is in the host's own answer."""
    del flaw
    seen = Seen.model_validate(look.seen)
    if not seen.listeners:
        return Judgement("inconclusive", "the host offers nothing, so nothing was put to the test")
    faults = []
    for one in seen.listeners:
        if _answers_plainly(one.plain):
            faults.append(f"port {one.port} answers plain HTTP ({one.plain})")
        elif one.tls not in GOOD_VERSIONS and not any(
            word in one.tls for word in DEMANDS_CERTIFICATE
        ):
            faults.append(f"port {one.port} does not speak TLS ({one.tls})")
        elif not one.old_tls.startswith(("refused", "closed")):
            faults.append(f"port {one.port} speaks {one.old_tls}")
        elif (left := _days_left(one.certificate, look.taken_at)) < RENEWAL_DAYS:
            faults.append(f"the certificate of port {one.port} ends in {left} days")
    if faults:
        return Judgement("fail", "; ".join(faults), "holdfast apply configures the listeners again")
    if not seen.old_tls_works:
        return Judgement(
            "inconclusive", "this host cannot speak TLS 1.1, so its refusal is untested"
        )
    return Judgement("pass", "every port others can reach speaks TLS, no plain HTTP, no TLS 1.1")


def _days_left(certificate: str, now: datetime) -> int:
    """Return how long a certificate still holds; one that was not shown is not judged."""
    if not certificate:
        return RENEWAL_DAYS
    ends = x509.load_der_x509_certificate(base64.b64decode(certificate)).not_valid_after_utc
    return (ends - now).days


def _answers_plainly(answer: str) -> bool:
    """Tell whether the answer serves the request; 400 is how TLS servers turn plain HTTP away."""
    words = answer.split()
    return answer.startswith("HTTP/") and len(words) > 1 and words[1] != "400"
