"""`holdfast status`: a site's hosts, or with `--local` what `holdfast up` started here."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.errors import EXIT_REFUSED
from holdfast_installer.local.command import show_status
from holdfast_installer.site_file import load_site
from holdfast_installer.status.hosts import HostStatus, SiteStatus, Unit, take_status


@click.command()
@site_option
@click.option("--local", is_flag=True, help="What `holdfast up --local` started, instead.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --local: its folder; local/ in holdfast's state by default.",
)
@json_option
def status(*, site_path: Path, local: bool, state: Path | None, as_json: bool) -> None:
    """Show what runs on each host, which models are served, and why one is not.

    \b
    holdfast status --site site.yml
    holdfast status --local

    Ends with 3 where something of the site does not run; with --local, 1 unless every service
    runs and answers. Nothing is changed.
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    if local:
        show_status(state, as_json=as_json)
        return
    site = load_site(site_path)
    with console.status(f"Asking {len(site.hosts)} hosts"):
        seen = take_status(site)
    emit(seen, as_json=as_json, render=_render)
    if seen.findings:
        sys.exit(EXIT_REFUSED)


def _render(seen: SiteStatus) -> None:
    table = Table("host", "unit", "state", "model", "checked")
    for host in seen.hosts:
        if host.problem:
            table.add_row(host.name, "", "[bold red]unread[/]", "", "")
        for unit in host.units:
            table.add_row(host.name, unit.unit, *_cells(host, unit))
    console.print(table)
    for finding in seen.findings:
        at = f"{finding.host}: " if finding.host else ""
        console.print(f"[bold red]{finding.verdict}[/] {at}{finding.name}", soft_wrap=True)
        console.print(f"    {escape(finding.detail)}", soft_wrap=True)
        console.print(f"    next: {escape(finding.fix)}", soft_wrap=True)
    if not seen.findings:
        console.print(f"Everything that {seen.site} should run, runs.")


def _cells(host: HostStatus, unit: Unit) -> tuple[str, str, str]:
    colour = "green" if unit.state == "active" else "bold red"
    state = f"[{colour}]{unit.state}[/]" + (f", {unit.restarts} restarts" if unit.restarts else "")
    replica = next((each for each in host.replicas if each.unit == unit.unit), None)
    if replica is None:
        return state, "", ""
    checked = [
        f"{'altered' if each.problems else 'whole'} at {each.checked}"
        for each in host.models
        if (each.model, each.commit) == (replica.model, replica.commit)
    ]
    return state, f"{replica.model}@{replica.commit[:12]}", (checked or ["not since it started"])[0]
