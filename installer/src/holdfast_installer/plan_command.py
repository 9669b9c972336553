"""`holdfast plan`: say what apply would do, and everything that bars it."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from holdfast_installer.bundle import manifest
from holdfast_installer.console import console, emit, json_option
from holdfast_installer.errors import EXIT_REFUSED, Refused
from holdfast_installer.plan import Plan, make_plan
from holdfast_installer.site_file import load_site
from holdfast_installer.survey.surveying import take_survey

GIB = 1024**3


@click.command()
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.yml"),
    show_default=True,
    help="The site file.",
)
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

    Where something bars an apply, every blocker is listed at once and the exit code is 3.
    """
    site = load_site(site_path)
    held = manifest.load(bundle_path)
    with console.status(f"Reading {len(site.hosts)} hosts"):
        seen = take_survey(site)
    made = make_plan(site, seen, held)
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
    hosts = Table("host", "roles", "hardware", "replicas", "copy", "disk", "memory")
    for host in made.hosts.values():
        units = ", ".join(f"{one.unit} :{one.port}" for one in host.replicas)
        hosts.add_row(
            host.name,
            ", ".join(host.roles),
            host.hardware,
            units,
            *(
                f"{size / GIB:.2f} GiB"
                for size in (host.copy_bytes, host.disk_bytes, host.memory_bytes)
            ),
        )
    console.print(f"Site {made.site}, bundle {made.bundle_digest}")
    console.print(hosts)
    steps = Table("step", "capability", "hosts", "what")
    for step in made.steps:
        steps.add_row(str(step.number), step.capability, ", ".join(step.hosts), step.summary)
    console.print(steps)
    for note in made.notes:
        console.print(f"note: {note.host}: {note.detail}")
