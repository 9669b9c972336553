"""Apply: take the lock, give Ansible the plan, show what happens, keep the journal."""

from __future__ import annotations

import getpass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict

from holdfast_installer.console import console, progress
from holdfast_installer.converge.ansible import run_playbook
from holdfast_installer.converge.journal import Journal, previous
from holdfast_installer.converge.lock import ApplyLock
from holdfast_installer.errors import HoldfastError
from holdfast_installer.inventory import inventory_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from holdfast_installer.converge.events import Event
    from holdfast_installer.plan.model import Plan
    from holdfast_installer.site import Site


class Applied(BaseModel):
    """What an apply did, for people and for --json."""

    model_config = ConfigDict(frozen=True)

    site: str
    release: str
    check: bool
    changed: dict[str, int]
    seconds: float
    journal: Path


def apply_plan(  # noqa: PLR0913 - each is one decision of the operator
    site: Site,
    plan: Plan,
    *,
    bundle: Path,
    journal_root: Path,
    check: bool = False,
    capabilities: tuple[str, ...] = (),
) -> Applied:
    """Converge the hosts of a plan that has no blockers.

    Raises Refused while another apply holds the site, HoldfastError naming the hosts that failed:
    the others have been finished, and the same command mends the rest.
    """
    control = site.host(plan.control)
    with ApplyLock(site, control) as lock:
        before = previous(journal_root)
        if before is not None and before.record.outcome == "running":
            at = _last_task(before)
            console.print(f"The last apply was interrupted{at}; this one goes on from there.")
            before.end("interrupted", changed={}, failed_hosts={})
        journal = Journal.begin(
            journal_root, site=site.name, bundle=plan.bundle_digest, operator=getpass.getuser()
        )
        journal.inventory.write_text(inventory_text(site, plan, bundle=bundle))
        with progress() as display:
            outcome = run_playbook(
                "apply",
                journal,
                keep_open=lock.descriptor,
                check=check,
                tags=capabilities,
                seen=_Bars(display, roles_by_host("apply", site)).saw,
            )
        failed = outcome.failed_hosts
        ended_well = outcome.exit_code == 0 and not failed
        journal.end(
            "done" if ended_well else "failed", changed=outcome.changed, failed_hosts=failed
        )
    if not ended_well:
        _complain(outcome.exit_code, failed, [host.name for host in site.hosts], journal)
    ended = journal.record.ended_at or journal.record.began_at
    return Applied(
        site=site.name,
        release=plan.bundle_digest.removeprefix("sha256:")[:12],
        check=check,
        changed=outcome.changed,
        seconds=round((ended - journal.record.began_at).total_seconds(), 1),
        journal=journal.folder,
    )


def roles_by_host(playbook: str, site: Site) -> dict[str, int]:
    """Return how many roles a playbook of ours applies to each host, for progress."""
    folder = resources.files("ansible_collections.holdfast.platform.playbooks")
    text = folder.joinpath(f"{playbook}.yml").read_text()
    counts = dict.fromkeys((host.name for host in site.hosts), 0)
    for play in yaml.safe_load(text):
        for host in site.hosts:
            if play["hosts"] == "all" or play["hosts"] in host.roles:
                counts[host.name] += len(play.get("roles", ()))
    return counts


def _complain(exit_code: int, failed: dict[str, str], hosts: list[str], journal: Journal) -> None:
    finished = [host for host in hosts if host not in failed]
    reasons = "\n         ".join(f"{host}: {why}" for host, why in sorted(failed.items()))
    raise HoldfastError(
        f"Apply did not finish on {', '.join(sorted(failed)) or 'the site'}"
        + (f"; finished as far as they could: {', '.join(finished)}." if finished else "."),
        where=str(journal.output),
        cause=reasons or f"ansible ended with exit code {exit_code}; see the file",
        next_command="mend the cause and run the same apply again; it goes on where it stopped",
    )


def _last_task(journal: Journal) -> str:
    from holdfast_installer.converge.events import EventReader  # noqa: PLC0415 - this path only

    tasks = [event for event in EventReader(journal.events).read() if event.event == "task"]
    return f" in {tasks[-1].role or tasks[-1].play}: {tasks[-1].task}" if tasks else ""


class _Bars:
    """One line per host: how many of its roles have begun, and what it does now."""

    def __init__(self, display: Progress, roles: dict[str, int]) -> None:
        self._display = display
        self._bars = {
            host: display.add_task(host, total=total) for host, total in roles.items() if total
        }
        self._begun: dict[str, set[tuple[str, str]]] = {host: set() for host in roles}

    def saw(self, event: Event) -> None:
        if event.event == "stats" and event.host in self._bars:
            total = self._display.tasks[self._bars[event.host]].total
            self._display.update(self._bars[event.host], completed=total, description=event.host)
        elif event.event in {"failed", "unreachable"}:
            self._display.console.print(
                f"[red]{event.host}[/red] {event.role}: {event.task}: {event.msg[:600]}",
                soft_wrap=True,
            )
        elif event.host in self._bars and event.role:
            self._begun[event.host].add((event.play, event.role))
            self._display.update(
                self._bars[event.host],
                completed=len(self._begun[event.host]) - 1,
                description=f"{event.host}: {event.role}: {event.task}"[:60],
            )
