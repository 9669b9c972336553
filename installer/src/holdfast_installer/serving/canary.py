"""One replica of what is to come, beside what serves: started, asked, given traffic, taken back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: JSON of the scripts

from holdfast_installer.console import console
from holdfast_installer.converge.ansible import collections_root
from holdfast_installer.converge.lock import ApplyLock
from holdfast_installer.errors import Finding, HoldfastError, Refused
from holdfast_installer.remote import run_on
from holdfast_installer.serving.judging import Asked, Counters, of_traffic
from holdfast_installer.serving.signals import script

if TYPE_CHECKING:
    from holdfast_installer.plan import Plan
    from holdfast_installer.plan.model import HostPlan
    from holdfast_installer.serving.judging import Figure, Thresholds
    from holdfast_installer.site import Host, Site

# What a canary needs on a site that stands; nothing that tells users of it.
CAPABILITIES = ("bundle", "model_registry", "egress", "vllm")
WORKERS = "/usr/local/lib/holdfast/workers.py"
ROLES = "ansible_collections/holdfast/platform/roles"
LOOK_SECONDS = 10
DRAIN_SECONDS = 300


@dataclass(frozen=True)
class Canary:
    """A unit, where it stands and answers, and what it will replace there."""

    site: Site
    host: Host
    control: Host
    unit: str
    model: str
    commit: str
    url: str
    old: str
    balancer: int
    list_of_workers: str

    def ask(self, prompts: list[str], rounds: int, max_tokens: int) -> tuple[Asked, Asked]:
        """Ask the canary and its predecessor the same; return what came of both."""
        given = {
            "model": self.model,
            "replicas": {"canary": self.url, "serving": self.old},
            "prompts": prompts,
            "rounds": rounds,
            "max_tokens": max_tokens,
        }
        seen = self._on_control("compare", given)
        return Asked.model_validate(seen["canary"]), Asked.model_validate(seen["serving"])

    def counters(self) -> tuple[Counters, Counters]:
        """Return what the canary and its predecessor counted so far."""
        seen = self._on_control("counters", {"canary": self.url, "serving": self.old})
        return Counters.model_validate(seen["canary"]), Counters.model_validate(seen["serving"])

    def live(self, seconds: int, limits: Thresholds) -> list[Figure]:
        """Give the canary its share of the traffic for a while; end early where it does badly."""
        before = self.counters()
        self._workers("add", 60)
        deadline = time.monotonic() + seconds
        while True:
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            canary, serving = (
                now.since(then) for now, then in zip(self.counters(), before, strict=True)
            )
            figures = list(of_traffic(canary, serving, limits))
            bad = any(one.holds is False for one in figures)
            if bad or time.monotonic() >= deadline:
                return figures

    def take_back(self) -> None:
        """Send it nothing more, let it end what it has, stop it and leave nothing of it.

        Raises Refused while an apply holds the site: it may have made the canary its own by now,
        and lets go of it otherwise.
        """
        with ApplyLock(self.site, self.control):
            self._take_back()

    def _take_back(self) -> None:
        self._workers("remove", DRAIN_SECONDS)
        program = Path(collections_root(), ROLES, "rollout/files/retire.py").read_text("utf-8")
        done = run_on(self.site, self.host, ["python3", "-", self.unit], given=program)
        if done.returncode:
            raise HoldfastError(
                f"The canary {self.unit} could not be stopped.",
                where=self.host.name,
                cause=done.stderr.strip()[-400:],
                next_command="holdfast apply: it lets go of what the site file does not ask for",
            )

    def _workers(self, verb: str, seconds: int) -> None:
        command = ["python3", WORKERS, self.list_of_workers, str(self.balancer), verb]
        done = run_on(self.site, self.control, [*command, str(seconds), self.url])
        if done.returncode:
            raise HoldfastError(
                "The balancer's list could not be changed.",
                where=self.control.name,
                cause=done.stderr.strip()[-400:],
                next_command="holdfast status --site SITE.yml",
            )

    def _on_control(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        command = ["python3", "-", json.dumps(given)]
        done = run_on(self.site, self.control, command, given=script(name))
        if done.returncode:
            raise HoldfastError(
                "The replicas could not be asked.",
                where=self.control.name,
                cause=done.stderr.strip()[-400:],
                next_command="holdfast status --site SITE.yml",
            )
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def choose(site: Site, plan: Plan, model: str) -> Canary | None:
    """Return the canary of a plan, None where it replaces nothing; Refused where none fits."""
    steps = [
        (host, each)
        for host in plan.hosts.values()
        for each in host.replacements
        if each.model == model
    ]
    if not steps:
        return None
    beside = [(host, each) for host, each in steps if each.beside]
    beside.sort(key=lambda step: step[1].standby)  # one that users are served by tells more
    if not beside:
        raise Refused(
            f"There is no room for a canary of {model}; nothing was touched.",
            (
                Finding(
                    name="canary-memory",
                    verdict="fail",
                    host=steps[0][0].name,
                    detail="no host has the memory for a new replica beside its old one",
                    fix="more memory, or without a canary: holdfast apply replaces one at a time",
                ),
            ),
        )
    host, step = beside[0]
    pool = next(one for one in plan.pools if one.name == step.pool)
    return Canary(
        site=site,
        host=site.host(host.name),
        control=site.host(plan.control),
        unit=step.unit,
        model=model,
        commit=next(one.commit for one in host.replicas if one.unit == step.unit),
        url=step.url,
        old=step.replaces[-1].url,
        balancer=pool.port,
        list_of_workers=f"/etc/holdfast/load_balancer/{pool.name}.json",
    )


def only(plan: Plan, canary: str) -> Plan:
    """Return a plan that starts the canary beside everything, and replaces and ends nothing."""
    return plan.model_copy(
        update={
            "hosts": {name: _only(host, canary) for name, host in plan.hosts.items()},
            "pools": tuple(
                one.model_copy(update={"joining": (), "workers": one.serving}) for one in plan.pools
            ),
        }
    )


def _only(host: HostPlan, canary: str) -> HostPlan:
    kept = tuple(one for one in host.replicas if one.unit in {canary, *host.standing})
    return host.model_copy(update={"replicas": kept, "replacements": (), "retiring": ()})


def tell(figures: list[Figure]) -> None:
    """Show the figures to a person."""
    for one in figures:
        verdict = {True: "holds", False: "does not hold", None: "for information"}[one.holds]
        shown = ", ".join(
            f"{name} {value:.3g}"
            for name, value in (
                ("canary", one.canary), ("serving", one.serving), ("allowed", one.allowed)
            )
            if value is not None
        )  # fmt: skip
        more = f" ({one.detail})" if one.detail else ""
        console.print(f"    {one.name}: {shown}: {verdict}{more}", markup=False, soft_wrap=True)
