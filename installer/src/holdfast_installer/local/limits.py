"""What the embedded form cannot show: said as findings, so that nobody reads silence as a pass."""

from __future__ import annotations

from holdfast_installer.errors import Finding

_WHY = "the services share this machine's network, its users and its firewall"
_LAB = "holdfast quickstart, as root on a machine where a lab can be booted"

LIMITS: tuple[Finding, ...] = (
    Finding(
        name="EGR-01",
        verdict="not-run",
        detail=f"whether anything can leave: {_WHY}, and there is no canary",
        fix=_LAB,
    ),
    Finding(
        name="DNS-01",
        verdict="not-run",
        detail="whether names outside resolve: this machine's resolver is used, not the site's",
        fix=_LAB,
    ),
    Finding(
        name="TEL-01",
        verdict="not-run",
        detail="whether vLLM asks anybody: its switches are set, but no witness watches it here",
        fix=_LAB,
    ),
    Finding(
        name="TLS-01",
        verdict="not-applicable",
        detail="everything speaks plain HTTP on loopback, and whoever has an account here reaches "
        "vLLM and its balancer past the gateway, without a token and unrecorded",
        fix=_LAB,
    ),
    Finding(
        name="INT-03",
        verdict="not-applicable",
        detail="no package is installed: programs come from the bundle's wheels, hash-checked",
        fix=_LAB,
    ),
)
