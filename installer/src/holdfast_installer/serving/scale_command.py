"""`holdfast scale`: more or fewer replicas of a model, by command or by its load."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import BaseModel, ConfigDict

from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.remote import operator_name
from holdfast_installer.serving.converging import REPLICAS, converged, planned
from holdfast_installer.serving.recording import record
from holdfast_installer.serving.scaling import (
    Change,
    Decision,
    Limits,
    decide,
    history,
    note,
    quiet_since,
)
from holdfast_installer.serving.signals import load_of
from holdfast_installer.serving.site_edit import Edit, model_of
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from holdfast_installer.plan import Plan

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    show_default=True,
    help="The bundle's folder; it is verified first.",
)
journal_option = click.option(
    "--journal",
    type=click.Path(path_type=Path),
    help="Folder for the record; journal/ beside the site file by default.",
)
_DEFAULT = Limits()


class Scaled(BaseModel):
    """What became of a model's replicas; units by host."""

    model_config = ConfigDict(frozen=True)

    model: str
    before: int
    after: int
    done: bool
    starting: dict[str, tuple[str, ...]]
    stopping: dict[str, tuple[str, ...]]
    seconds: float
    why: str
    journal: Path | None = None


@click.command()
@click.argument("model", metavar="ORG/NAME")
@click.argument("count", metavar="[REPLICAS]", type=click.IntRange(1, 1000), required=False)
@site_option
@bundle_option
@click.option("--dry-run", is_flag=True, help="Say what would change and change nothing.")
@click.option("--auto", is_flag=True, help="Take the number from the load; say it only.")
@click.option("--apply", "act", is_flag=True, help="With --auto: do it, too.")
@click.option(
    "--min",
    "least",
    type=click.IntRange(1),
    default=_DEFAULT.least,
    show_default=True,
    help="With --auto: never fewer.",
)
@click.option(
    "--max",
    "most",
    type=click.IntRange(1),
    default=_DEFAULT.most,
    show_default=True,
    help="With --auto: never more.",
)
@click.option(
    "--queue",
    type=float,
    default=_DEFAULT.queue,
    show_default=True,
    help="With --auto: one more when more requests than this wait for each replica.",
)
@click.option(
    "--ttft",
    type=float,
    default=_DEFAULT.ttft_seconds,
    show_default=True,
    help="With --auto: one more when the p95 of the time to a first token is over this, in s.",
)
@click.option(
    "--window",
    type=click.IntRange(30, 86400),
    default=300,
    show_default=True,
    help="With --auto: seconds of load to look at.",
)
@click.option(
    "--cooldown",
    type=click.IntRange(0),
    default=_DEFAULT.pause_down_seconds,
    show_default=True,
    help="With --auto: seconds after a change before one fewer; one more waits at most 120 s.",
)
@journal_option
@json_option
def scale(
    *,
    model: str,
    count: int | None,
    site_path: Path,
    bundle: Path,
    dry_run: bool,
    auto: bool,
    act: bool,
    least: int,
    most: int,
    queue: float,
    ttft: float,
    window: int,
    cooldown: int,
    journal: Path | None,
    as_json: bool,
) -> None:
    """Serve a model with more or fewer replicas; its requests go on meanwhile.

    The number is written into the site file, and only what it asks for is applied. One that goes
    is sent nothing more, ends what it has, and stops. Run again after any interruption.

    \b
    holdfast scale org/name 3 --site site.yml
    holdfast scale org/name 1 --site site.yml --dry-run
    holdfast scale org/name --auto --min 1 --max 6 --site site.yml --apply
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    if auto == (count is not None):
        raise click.UsageError("give a number of replicas, or --auto")
    if act and not auto:
        raise click.UsageError("--apply goes with --auto")
    if most < least:
        raise click.UsageError("--max is less than --min")
    root = journal or site_path.absolute().parent / "journal"
    why = "by command"
    if count is None:
        limits = Limits(
            least=least,
            most=most,
            queue=queue,
            ttft_seconds=ttft,
            pause_up_seconds=min(cooldown, _DEFAULT.pause_up_seconds),
            pause_down_seconds=cooldown,
        )
        decision = _by_load(site_path, model, window, limits, root)
        if not act or decision.after == decision.before:
            emit(decision, as_json=as_json, render=_render_decision)
            return
        count, why = decision.after, decision.why
    scaled = scale_to(site_path, bundle, root, model, count, why=why, dry_run=dry_run)
    emit(scaled, as_json=as_json, render=_render)


def _by_load(path: Path, model: str, window: int, limits: Limits, journal: Path) -> Decision:
    site = load_site(path)
    now = model_of(site, model, path).replicas
    quiet = quiet_since(history(journal), model)
    return decide(load_of(site, model, window), now, limits, quiet_seconds=quiet)


def scale_to(
    path: Path, bundle: Path, journal: Path, model: str, count: int, *, why: str, dry_run: bool
) -> Scaled:
    """Bring a model to a number of replicas, in the site file and on the hosts."""
    began = time.monotonic()
    edit = Edit(path, model, "replicas", count)
    plan = planned(edit.site, bundle)
    before = edit.model.replicas
    applied = None
    if not dry_run:
        record(edit.site, "model.scale", model=model, before=before, after=count, why=why)
        edit.write()
        if edit.differs:
            change = Change(
                at=datetime.now(UTC),
                model=model,
                before=before,
                after=count,
                why=why,
                operator=operator_name(),
            )
            note(journal, change)
        applied = converged(edit.site, plan, bundle, journal, REPLICAS)
    return Scaled(
        model=model,
        before=before,
        after=count,
        done=not dry_run,
        starting=_starting(plan, model),
        stopping={
            name: units
            for name, host in plan.hosts.items()
            if (units := tuple(one.unit for one in host.retiring if one.model == model))
        },
        seconds=round(time.monotonic() - began, 1),
        why=why,
        journal=applied.journal if applied is not None else None,
    )


def _starting(plan: Plan, model: str) -> dict[str, tuple[str, ...]]:
    """Return the units of a model that do not stand yet, by host."""
    found = {
        name: tuple(
            one.unit
            for one in host.replicas
            if one.model == model and one.unit not in host.standing
        )
        for name, host in plan.hosts.items()
    }
    return {name: units for name, units in found.items() if units}


def _render(scaled: Scaled) -> None:
    verb = "has" if scaled.done else "would have"
    console.print(f"{scaled.model} {verb} {scaled.after} replicas; it had {scaled.before}.")
    for word, units in (("starts", scaled.starting), ("stops", scaled.stopping)):
        for host, names in units.items():
            console.print(f"    {host} {word} {', '.join(names)}", soft_wrap=True)
    if scaled.journal is not None:
        console.print(f"Took {scaled.seconds:.0f} s. Journal: {scaled.journal}", soft_wrap=True)


def _render_decision(decision: Decision) -> None:
    console.print(
        f"{decision.model}: {decision.before} replicas, should have {decision.after}: "
        f"{decision.why}",
        soft_wrap=True,
    )
