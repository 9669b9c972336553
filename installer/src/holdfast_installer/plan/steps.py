"""The order in which apply builds a site: one step a capability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from holdfast_installer.plan.model import Step

if TYPE_CHECKING:
    from holdfast_installer.site import Site

Where = Literal["all", "control", "serving"]

# Capability (which is also the role's name), where it goes, what it does.
ORDER: tuple[tuple[str, Where, str], ...] = (
    ("bundle", "control", "the bundle's blobs, verified on arrival"),
    ("base_system", "all", "packages, accounts, host names"),
    ("certificate_authority", "all", "certificate authority and host certificates"),
    ("mirror", "control", "packages and wheels of the bundle over TLS"),
    ("dns", "all", "the site's zone; no other name leaves"),
    ("time", "all", "clocks follow the control host"),
    ("egress", "all", "nftables: default deny both ways, the plan's allow list"),
    ("postgresql", "control", "databases of the services"),
    ("release", "all", "environments side by side, from the mirror alone"),
    ("identity", "control", "users, teams, tokens; who the site file drops leaves their team"),
    ("model_registry", "control", "the bundle's models, behind nginx"),
    ("vllm", "serving", "pull, verify and serve models, one unit a replica"),
    ("rollout", "serving", "replace what changed, one replica at a time, and drain what goes"),
    ("load_balancer", "control", "one smg a pool"),
    ("gateway", "control", "the OpenAI-compatible API"),
    ("console", "control", "the pages in a browser"),
    ("edge", "control", "HAProxy: TLS for hub, API and console"),
    ("metrics", "all", "Prometheus and node exporters"),
)


def steps(site: Site) -> tuple[Step, ...]:
    """Return the numbered steps with the hosts each one changes."""
    everywhere = tuple(host.name for host in site.hosts)
    hosts: dict[Where, tuple[str, ...]] = {
        "all": everywhere,
        "control": tuple(host.name for host in site.with_role("control")),
        "serving": tuple(host.name for host in site.with_role("serving")),
    }
    return tuple(
        Step(number=number, capability=capability, hosts=hosts[where], summary=summary)
        for number, (capability, where, summary) in enumerate(ORDER, start=1)
        if hosts[where]
    )
