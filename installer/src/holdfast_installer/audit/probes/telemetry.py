"""TEL-01: vLLM, from its start to a generated answer, tries to reach nobody.

The filter drops and counts every packet that vLLM's user opens, name questions included; each unit
notes the counter as it starts. The audit makes every unit generate, then reads how far the counter
has moved since. A packet that the probe sends as the same user must be counted, or the count proves
nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter

from holdfast_installer.audit.probes.judgement import Judgement
from holdfast_installer.audit.vantage import on_hosts

if TYPE_CHECKING:
    from pydantic import JsonValue

    from holdfast_installer.audit.evidence import Observation
    from holdfast_installer.site import Host, Site

CONTROL = "TEL-01"
NEEDS_CANARY = False
ARGUMENT: dict[str, JsonValue] = {
    "account": "holdfast-vllm",
    "counter": "vllm_egress_drop",
    "baselines": "/run/holdfast/vllm-egress",
}
WORKER_FILES = "/etc/holdfast/load_balancer"


class Unit(BaseModel):
    """One vLLM unit; `attempts` are packets it tried to send since it started.

    None: nothing was noted at its start. Negative: the filter was loaded anew since.
    """

    model_config = ConfigDict(extra="forbid")

    unit: str
    active: str
    started: str
    attempts: int | None


class Generation(BaseModel):
    """What one unit answered when asked for two tokens."""

    model_config = ConfigDict(extra="forbid")

    url: str
    model: str
    tokens: int
    problem: str


class Seen(BaseModel):
    """What scripts/telemetry.py prints, with the host's generations beside it."""

    model_config = ConfigDict(extra="forbid")

    units: list[Unit]
    control_counted: bool
    generated: list[Generation] | None = None


def hosts(site: Site) -> tuple[Host, ...]:
    """Return the hosts that run vLLM."""
    return site.with_role("serving")


def observe(site: Site, nonce: str) -> tuple[Observation, ...]:
    """Let every unit generate, asked from the control host, then read the counters."""
    del nonce
    control = site.with_role("control")[0]
    asked = on_hosts(site, CONTROL, "generation", {control.name: {"workers": WORKER_FILES}})
    generations: list[Generation] | None = None
    if isinstance(asked[0].seen, dict):
        generations = TypeAdapter(list[Generation]).validate_python(asked[0].seen["workers"])
    looks = on_hosts(site, CONTROL, "telemetry", {host.name: ARGUMENT for host in hosts(site)})
    vantage = asked[0].model_copy(
        update={"vantage": "control", "host": f"{control.name} (balancer)"}
    )
    return (vantage, *(_with_generations(site, look, generations) for look in looks))


def _with_generations(
    site: Site, look: Observation, generations: list[Generation] | None
) -> Observation:
    if not isinstance(look.seen, dict) or generations is None:
        return look
    name = site.fqdn(site.host(look.host))
    own: JsonValue = [one.model_dump() for one in generations if urlsplit(one.url).hostname == name]
    return look.model_copy(update={"seen": {**look.seen, "generated": own}})


def control_flaw(control: Observation | None) -> str:
    """Find nothing: the positive control is in each host's own answer."""
    del control
    return ""


def judge(look: Observation, flaw: str) -> Judgement:
    """Judge one serving host."""
    del flaw
    seen = Seen.model_validate(look.seen)
    if not seen.units:
        return Judgement("inconclusive", "no vLLM unit is installed here", "holdfast apply")
    loud = [one for one in seen.units if (one.attempts or 0) > 0]
    if loud:
        told = "; ".join(f"{one.unit} tried to send {one.attempts} packets" for one in loud)
        return Judgement(
            "fail", f"{told} since it started", "look at the unit's environment; holdfast apply"
        )
    if not seen.control_counted:
        return Judgement("inconclusive", "the filter did not count the probe's own packet")
    unnoted = [one.unit for one in seen.units if one.attempts is None]
    if unnoted:
        return Judgement("inconclusive", f"no count was noted when {', '.join(unnoted)} started")
    uncounted = [one.unit for one in seen.units if (one.attempts or 0) < 0]
    if uncounted:
        return Judgement(
            "inconclusive",
            f"the filter was loaded anew after {', '.join(uncounted)} started: what it sent "
            "meanwhile was not counted",
            "systemctl restart the unit, then audit again",
        )
    down = [f"{one.unit} is {one.active}" for one in seen.units if one.active != "active"]
    if down:
        return Judgement("inconclusive", "; ".join(down), "systemctl status on the host")
    answers = seen.generated or []
    if len([one for one in answers if one.tokens > 0]) < len(seen.units):
        problems = "; ".join(one.problem for one in answers if one.problem) or "no answer"
        return Judgement("inconclusive", f"not every unit generated: {problems}")
    return Judgement(
        "pass", "from the start of each unit to an answer of now, not one packet to anybody"
    )
