"""INT-03: a host takes packages from the site's signed mirror only.

apt itself is offered four repositories in a private folder: the site's as published, the same with
one digit of one digest altered, the same unsigned, and the same judged by a stranger's key. The
first must be taken and the others refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.audit.probes.judgement import Judgement
from holdfast_installer.audit.vantage import on_hosts

if TYPE_CHECKING:
    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Host, Site

CONTROL = "INT-03"
NEEDS_CANARY = False
MUST_BE_REFUSED = ("altered", "unsigned", "stranger")
UNTRUSTING = ("trusted=yes", "trusted: yes", "allow-insecure", "allow-unauthenticated")


class Trial(BaseModel):
    """What apt made of one repository."""

    model_config = ConfigDict(extra="forbid")

    accepted: bool
    said: str


class Seen(BaseModel):
    """What scripts/provenance.py prints."""

    model_config = ConfigDict(extra="forbid")

    sources: list[str]
    trials: dict[str, Trial]


def hosts(site: Site) -> tuple[Host, ...]:
    """Every host."""
    return site.hosts


def observe(site: Site, nonce: str) -> tuple[Observation, ...]:
    """Let apt judge the four repositories on every host."""
    del nonce
    return on_hosts(site, CONTROL, "provenance", {host.name: {} for host in site.hosts})


def control_flaw(control: Observation | None) -> str:
    """Find nothing: the positive control is in each host's own answer."""
    del control
    return ""


def judge(look: Observation, flaw: str) -> Judgement:
    """Judge one host."""
    del flaw
    seen = Seen.model_validate(look.seen)
    again = "holdfast apply writes the sources again"
    trusting = [line for line in seen.sources if any(word in line.lower() for word in UNTRUSTING)]
    if trusting:
        return Judgement("fail", f"a source is trusted without a signature: {trusting[0]}", again)
    if len(seen.sources) != 1:
        told = "; ".join(seen.sources) or "none"
        return Judgement("fail", f"apt should know one source; it knows: {told}", again)
    if not {"published", *MUST_BE_REFUSED} <= seen.trials.keys():
        return Judgement("inconclusive", "apt has no index of the site's mirror to try", again)
    taken = [name for name in MUST_BE_REFUSED if seen.trials[name].accepted]
    if taken:
        return Judgement("fail", f"apt took a repository that is {' and '.join(taken)}", again)
    published = seen.trials["published"]
    if not published.accepted:
        return Judgement("inconclusive", f"apt refused the mirror as published: {published.said}")
    return Judgement(
        "pass", "one signed source; apt refused it altered, unsigned and under a stranger's key"
    )
