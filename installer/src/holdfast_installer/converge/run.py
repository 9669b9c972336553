"""Apply: take the lock, give Ansible the plan, show what happens, keep the journal."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from holdfast_installer.console import console, progress
from holdfast_installer.converge.ansible import run_playbook
from holdfast_installer.converge.journal import Journal, previous
from holdfast_installer.converge.lock import ApplyLock
from holdfast_installer.errors import HoldfastError
from holdfast_installer.inventory import inventory_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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
                seen=_Bars(display, [host.name for host in site.hosts]).saw,
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
        release=plan.release,
        check=check,
        changed=outcome.changed,
        seconds=round((ended - journal.record.began_at).total_seconds(), 1),
        journal=journal.folder,
    )


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

    tasks = [event for event in EventReader(journal.events).read() if event.event == "task_start"]
    return f" in {tasks[-1].role or tasks[-1].play}: {tasks[-1].task}" if tasks else ""


class _Bars:
    """One line per play: how many of its tasks ended on how many hosts, and what runs now."""

    def __init__(self, display: Progress, hosts: list[str]) -> None:
        self._display = display
        self._hosts = hosts
        self._bar: TaskID | None = None
        self._done = 0
        self._total = 0

    def saw(self, event: Event) -> None:
        if event.event == "play_start":
            self._finish()
            self._total = max(event.tasks, 1)
            self._done = 0
            self._bar = self._display.add_task(event.play, total=self._total)
        elif event.event == "task_start" and self._bar is not None:
            self._done += 1
            self._total = max(self._total, self._done)
            self._display.update(
                self._bar,
                completed=self._done - 1,
                total=self._total,
                description=f"{event.play}: {event.role or event.task}",
            )
        elif event.event in {"host_failed", "host_unreachable"} and not event.ignored:
            self._display.console.print(
                f"[red]{event.host}[/red] {event.role}: {event.task}: {event.msg[:600]}",
                soft_wrap=True,
            )
        elif event.event == "playbook_end":
            self._finish()

    def _finish(self) -> None:
        if self._bar is not None:
            self._display.update(self._bar, completed=self._total, total=self._total)
