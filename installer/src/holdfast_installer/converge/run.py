"""Apply: take the lock, give Ansible the plan, show what happens, keep the journal."""

from __future__ import annotations

import getpass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict
from rich.markup import escape

from holdfast_installer.console import console, progress
from holdfast_installer.converge.ansible import Outcome, run_playbook
from holdfast_installer.converge.journal import Journal, previous
from holdfast_installer.converge.lock import ApplyLock
from holdfast_installer.errors import HoldfastError
from holdfast_installer.inventory import inventory_text
from holdfast_installer.remote import operator_name

if TYPE_CHECKING:
    from rich.progress import Progress

    from holdfast_installer.converge.events import Event
    from holdfast_installer.plan.model import Plan
    from holdfast_installer.site import Site

LONGEST_REASON = 900
INDENT = " " * 9  # under the words after `why:`


class Applied(BaseModel):
    """What an apply did, for people and for --json."""

    model_config = ConfigDict(frozen=True)

    site: str
    release: str
    check: bool
    outcome: Literal["done", "failed", "interrupted"]
    changed: dict[str, int]
    failed_hosts: dict[str, str]
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

    Raises Refused while another apply holds the site. Hosts that failed are in the result (see
    `complain`): the others have been finished, and the same command mends the rest.
    """
    control = site.host(plan.control)
    with ApplyLock(site, control) as lock:
        before = previous(journal_root, site.name)
        if before is not None and before.record.outcome == "running":
            at = _last_task(before)
            words = f"The last apply was interrupted{at}; this one goes on from there."
            console.print(words, markup=False, soft_wrap=True)
            before.end("interrupted", changed={}, failed_hosts={})
        journal = Journal.begin(
            journal_root,
            site=site.name,
            bundle=plan.bundle_digest,
            operator=getpass.getuser(),
            check=check,
        )
        journal.inventory.write_text(inventory_text(site, plan, bundle, operator_name()))
        outcome = _run(site, journal, keep_open=lock.descriptor, check=check, tags=capabilities)
        ended: Literal["done", "failed", "interrupted"] = "interrupted"
        if outcome is not None:
            ended_well = outcome.exit_code == 0 and not outcome.failed_hosts
            ended = "done" if ended_well else "failed"
        changed = outcome.changed if outcome else {}
        failed = outcome.failed_hosts if outcome else {}
        if outcome is None:
            console.print(
                "Interrupted; waiting for the tasks under way. Ctrl-C again leaves them alone."
            )
            lock.await_children()
        journal.end(ended, changed=changed, failed_hosts=failed)
    ended_at = journal.record.ended_at or journal.record.began_at
    return Applied(
        site=site.name,
        release=plan.bundle_digest.removeprefix("sha256:")[:12],
        check=check,
        outcome=ended,
        changed=changed,
        failed_hosts=failed,
        seconds=round((ended_at - journal.record.began_at).total_seconds(), 1),
        journal=journal.folder,
    )


def _run(
    site: Site, journal: Journal, *, keep_open: int, check: bool, tags: tuple[str, ...]
) -> Outcome | None:
    """Run the playbook under progress bars; None where the operator interrupted it."""
    try:
        with progress() as display:
            return run_playbook(
                "apply",
                journal,
                keep_open=keep_open,
                check=check,
                tags=tags,
                seen=_Bars(display, roles_by_host("apply", site)).saw,
            )
    except KeyboardInterrupt:
        return None


def roles_by_host(playbook: str, site: Site) -> dict[str, int]:
    """Return how many roles a playbook of ours applies to each host, for progress."""
    counts = dict.fromkeys((host.name for host in site.hosts), 0)
    for play in _plays(playbook):
        for host in site.hosts:
            if play["hosts"] == "all" or play["hosts"] in host.roles:
                counts[host.name] += len(play.get("roles", ()))
    return counts


def capability_names() -> frozenset[str]:
    """Return the capabilities that apply can be held to: the roles of its playbook."""
    return frozenset(
        role["role"].rpartition(".")[2] for play in _plays("apply") for role in play["roles"]
    )


def _plays(playbook: str) -> list[dict[str, Any]]:
    folder = resources.files("ansible_collections.holdfast.platform.playbooks")
    plays: list[dict[str, Any]] = yaml.safe_load(folder.joinpath(f"{playbook}.yml").read_text())
    return plays


def complain(applied: Applied, site: Site) -> None:
    """Raise HoldfastError where an apply did not end well, naming hosts, tasks and what to do."""
    where = str(applied.journal / "ansible.log")
    if applied.outcome == "interrupted":
        raise HoldfastError(
            "Apply was interrupted.",
            where=where,
            next_command="run the same apply again; it goes on where this one stopped",
        )
    if applied.outcome == "failed":
        failed = applied.failed_hosts
        others = [host.name for host in site.hosts if host.name not in failed]
        others = others if applied.changed else []  # it did not come as far as counting
        # Ansible counts for each host it came to; a failure on the control host may end all.
        finished = ", ".join(host for host in others if host in applied.changed)
        unbegun = ", ".join(host for host in others if host not in applied.changed)
        reasons = f"\n{INDENT}".join(
            f"{host}: {_shortened(why)}".replace("\n", f"\n{INDENT}  ")
            for host, why in sorted(failed.items())
        )
        raise HoldfastError(
            f"Apply did not finish on {', '.join(sorted(failed)) or 'the site'}"
            + (f"; finished as far as they could: {finished}" if finished else "")
            + (f"; not begun: {unbegun}" if unbegun else "")
            + ".",
            where=where,
            cause=reasons or "ansible ended early without naming a host; the file says why",
            next_command="mend the cause and run the same apply again; it goes on where it stopped",
        )


def _shortened(text: str) -> str:
    """Cut the middle out of a long complaint: how it began, and how it ended."""
    if len(text) <= LONGEST_REASON:
        return text
    return f"{text[: LONGEST_REASON // 3]} ... {text[-LONGEST_REASON * 2 // 3 :]}"


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
                f"[red]{escape(event.host)}[/red] "
                + escape(f"{event.role or event.play}: {event.task}: {_shortened(event.msg)}"),
                soft_wrap=True,
            )
        elif event.event == "ok" and event.msg:
            self._display.console.print(
                escape(f"{event.host}: {event.role or event.play}: {event.msg}"), soft_wrap=True
            )
        elif event.host in self._bars and event.role:
            self._begun[event.host].add((event.play, event.role))
            self._display.update(
                self._bars[event.host],
                completed=len(self._begun[event.host]) - 1,
                description=escape(f"{event.host}: {event.role}: {event.task}"[:60]),
            )
