"""`holdfast audit`: options, one call, one table."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.table import Table

from holdfast_installer.audit.evidence import AuditResult, write
from holdfast_installer.audit.run import PROBES
from holdfast_installer.audit.run import audit as observe
from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.errors import EXIT_REFUSED, Finding
from holdfast_installer.site_file import load_site

COLOURS = {"pass": "green", "fail": "bold red", "error": "red"}


@click.command()
@site_option
@click.option(
    "--control",
    "controls",
    multiple=True,
    type=click.Choice([probe.CONTROL for probe in PROBES]),
    help="Only this control; may be given several times.",
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="Folder for the raw observations; evidence/ beside the site file by default.",
)
@json_option
def audit(
    *, site_path: Path, controls: tuple[str, ...], evidence: Path | None, as_json: bool
) -> None:
    """Observe the controls on the running hosts; exit 3 where one does not hold.

    \b
    holdfast audit --site site.yml
    holdfast audit --site site.yml --control EGR-01 --json
    """  # noqa: D301 - \b is click's mark for text to leave as it is
    site = load_site(site_path)
    result = observe(site, controls)
    path = write(result, evidence or site_path.parent / "evidence")
    emit(result, as_json=as_json, render=_render)
    console.print(f"Raw observations: {path}", soft_wrap=True)
    if result.findings:
        sys.exit(EXIT_REFUSED)


def _render(result: AuditResult) -> None:
    """One row for each control and what was observed, naming the hosts that showed it."""
    rows: dict[Finding, list[str]] = {}
    for one in result.verdicts:
        rows.setdefault(one.model_copy(update={"host": ""}), []).append(one.host)
    table = Table("control", "verdict", "hosts", "observed")
    for one, hosts in rows.items():
        colour = COLOURS.get(one.verdict, "yellow")
        fix = f"\n[dim]fix: {one.fix}[/dim]" if one.fix else ""
        verdict = f"[{colour}]{one.verdict}[/{colour}]"
        table.add_row(one.name, verdict, ", ".join(hosts), one.detail + fix)
    console.print(table)
    held = len(result.verdicts) - len(result.findings)
    console.print(
        f"On {result.began_at:%Y-%m-%d %H:%M:%S} UTC {held} of {len(result.verdicts)} observations "
        "were as the control asks."
    )
