"""`holdfast plan`: say what apply would do, and everything that bars it."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast_installer.bundle.verify import verify
from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.converge.unit_files import unit_files
from holdfast_installer.errors import EXIT_REFUSED, Refused
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.plan.model_contexts import contexts
from holdfast_installer.site_file import load_site
from holdfast_installer.survey.surveying import take_survey

GIB = 1024**3


@click.command()
@site_option
@click.option(
    "--bundle",
    "bundle_path",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    show_default=True,
    help="Folder of the bundle.",
)
@json_option
def plan(*, site_path: Path, bundle_path: Path, as_json: bool) -> None:
    """Print placement, sizes and steps; touches nothing.

    The bundle is verified first. Where something bars an apply, every blocker is listed at once
    and the exit code is 3.
    """
    site = load_site(site_path)
    with console.status("Verifying the bundle"):
        verified = verify(bundle_path)
    with console.status(f"Reading {len(site.hosts)} hosts"):
        seen = take_survey(site)
    made = make_plan(site, seen, verified.manifest, contexts(verified), unit_files())
    emit(made, as_json=as_json, render=_render)
    if made.blockers and as_json:
        raise click.exceptions.Exit(EXIT_REFUSED)
    refuse_blocked(made, str(site_path))


def refuse_blocked(made: Plan, site_path: str) -> None:
    """Raise `Refused` with every blocker of a plan, if it has any."""
    if made.blockers:
        count = len(made.blockers)
        raise Refused(
            f"{count} blocker{'s' if count > 1 else ''}; nothing was touched.",
            made.blockers,
            next_command=f"mend these, then: holdfast plan --site {site_path}",
        )


def _render(made: Plan) -> None:
    console.print(f"Site {made.site}, bundle {made.bundle_digest}", soft_wrap=True)
    for host in made.hosts.values():
        sizes = f"copy {_gib(host.copy_bytes)}, disk {_gib(host.disk_bytes)}"
        console.print(
            f"{host.name}: {' + '.join(host.roles)}; {sizes}, memory {_gib(host.memory_bytes)}"
            + (f"; {host.hardware}" if host.hardware else ""),
            soft_wrap=True,
        )
        for one in host.replicas:
            verb = "stands by for" if one.standby else "serves"
            console.print(f"    {one.unit} {verb} {one.model} on port {one.port}", soft_wrap=True)
        for each in host.replacements:
            olds = ", ".join(old.unit for old in each.replaces)
            how = "beside it first" if each.beside else "which ends before it starts"
            console.print(f"    {each.unit} replaces {olds}, {how}", soft_wrap=True)
        for going in host.retiring:
            console.print(f"    {going.unit} is drained and stopped", soft_wrap=True)
    console.print("Steps:")
    everyone = tuple(made.hosts)
    for step in made.steps:
        where = "every host" if step.hosts == everyone else ", ".join(step.hosts)
        line = f"{step.number:>4}  {step.capability} on {where}: {step.summary}"
        console.print(line, soft_wrap=True)
    for note in made.notes:
        where = f"{note.host}: " if note.host else ""
        console.print(f"note: {where}{note.detail}", soft_wrap=True)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
