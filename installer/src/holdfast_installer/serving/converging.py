"""From a site, perhaps not written down yet, to hosts that are like it: look, plan, apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_installer.bundle.verify import verify
from holdfast_installer.console import console
from holdfast_installer.converge.lock import LOCK
from holdfast_installer.converge.run import Applied, apply_plan, complain
from holdfast_installer.converge.unit_files import unit_files
from holdfast_installer.errors import Refused
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.model_contexts import contexts
from holdfast_installer.survey.surveying import take_survey

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.site import Site

# What another number of replicas, or another revision, asks of a site that stands: the way to the
# units, the units, who sends them requests and who watches them.
REPLICAS = ("egress", "load_balancer", "gateway", "metrics", "vllm", "rollout")
# A revision is in the registry before anybody serves it; the bundle brings it.
REVISION = ("bundle", "model_registry", *REPLICAS)


def planned(site: Site, bundle: Path) -> Plan:
    """Look at the hosts and plan; raises Refused with everything that bars it."""
    with console.status("Verifying the bundle"):
        verified = verify(bundle)
    with console.status(f"Reading {len(site.hosts)} hosts"):
        seen = take_survey(site)
    plan = make_plan(site, seen, verified.manifest, contexts(verified), unit_files())
    # An apply of ours that was killed may hold the lock for a moment yet: apply waits for that.
    blockers = tuple(one for one in plan.blockers if one.name != LOCK)
    if blockers:
        raise Refused(
            f"{len(blockers)} blocker{'s' * (len(blockers) != 1)}; nothing was touched.",
            blockers,
            next_command="mend them, then run the same command again",
        )
    for note in plan.notes:
        if note.name == "interruption":
            console.print(f"note: {note.host}: {note.detail}", markup=False, soft_wrap=True)
    return plan


def converged(
    site: Site, plan: Plan, bundle: Path, journal: Path, capabilities: tuple[str, ...]
) -> Applied:
    """Apply some capabilities of a plan; raises HoldfastError where that did not end well."""
    applied = apply_plan(site, plan, bundle=bundle, journal_root=journal, capabilities=capabilities)
    complain(applied, site)
    return applied
