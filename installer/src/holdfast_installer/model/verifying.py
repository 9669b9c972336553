"""The chain of a revision as its registry proves it, and where on the site it is served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any  # Any: the registry's JSON, shown as it comes

from holdfast_installer.audit.evidence import SATISFIED
from holdfast_installer.errors import HoldfastError
from holdfast_installer.model.registry import run_registry
from holdfast_installer.status.hosts import take_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_installer.site import Site
    from holdfast_installer.status.hosts import SiteStatus

Chain = dict[str, Any]
# Who uploaded, and what a card says, is somebody's word: shown as such, and no finding.
HOLDS = SATISFIED | {"attested"}
PROVED = (0, 3)  # exit codes with which the registry hands out a chain


def verify(site: Site, revision: str, *, dataset: bool) -> Chain:
    """Return the chain with a last link on where it is served; HoldfastError if there is none."""
    words = ["model", "verify", revision, "--json", *(["--dataset"] if dataset else [])]
    code, answer, said = run_registry(site, words)
    try:
        chain: Chain = json.loads(answer) if code in PROVED else {}
    except ValueError:
        chain = {}
    if not chain:
        raise HoldfastError(
            f"{revision} could not be verified.",
            where=f"the registry on {site.with_role('control')[0].name}",
            cause=said.strip()[-1000:] or f"exit code {code}",
            next_command="holdfast model list --site SITE.yml",
        )
    if not dataset:
        chain["links"].append(served(chain, take_status(site)))
    return chain


def findings(chain: Chain) -> list[dict[str, str]]:
    """Return the links that need somebody's attention."""
    return [link for link in chain["links"] if link["verdict"] not in HOLDS]


def served(chain: Chain, status: SiteStatus) -> dict[str, str]:
    """Return the link that says which hosts serve just this revision, and which cannot."""
    running, refused = [], []
    for host, unit, state, why in _replicas(chain, status):
        if state == "active" and not why:
            running.append(f"{host} ({unit})")
        else:
            refused.append(f"{host} ({unit}) is {state}" + (f": {why}" if why else ""))
    unread = [f"{host.name} was not read: {host.problem}" for host in status.hosts if host.problem]
    where = f"on {', '.join(running)}" if running else "nowhere"
    detail = "; ".join([where, *refused, *unread])
    if refused:
        return _link("fail", detail, "holdfast status --site SITE.yml")
    if unread:
        return _link("inconclusive", detail, "holdfast survey --site SITE.yml")
    return _link("pass" if running else "not-applicable", detail)


def _replicas(chain: Chain, status: SiteStatus) -> Iterator[tuple[str, str, str, str]]:
    """Yield (host, unit, state, why not) of each unit that is meant to serve this revision."""
    for host in status.hosts:
        for replica in host.replicas:
            if (replica.model, replica.commit) == (chain["model"], chain["commit"]):
                unit = host.unit(replica.unit)
                state = unit.state if unit else "not there"
                yield host.name, replica.unit, state, host.refusal(replica)


def _link(verdict: str, detail: str, fix: str = "") -> dict[str, str]:
    return {"name": "served", "verdict": verdict, "detail": detail, "fix": fix}
