"""`holdfast budget list`: what is spent and left of the budgets of a running site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast_installer.console import json_option, site_option
from holdfast_installer.remote import run_on
from holdfast_installer.site_file import load_site
from holdfast_installer.usage_command import ON_CONTROL

if TYPE_CHECKING:
    from pathlib import Path


@click.group()
def budget() -> None:
    """Look at the site's budgets; they are written in site.yml (budgets)."""


@budget.command("list")
@site_option
@json_option
@click.pass_context
def list_(ctx: click.Context, *, site_path: Path, as_json: bool) -> None:
    """Show what is spent, leased to gateways and left, and when each budget is renewed.

    Of a budget that each has for himself, those are listed who have used it. What a gateway held
    that was killed counts as spent until the renewal.

    \b
    holdfast budget list --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["budgets", *(["--json"] if as_json else [])]
    site = load_site(site_path)
    done = run_on(site, site.with_role("control")[0], (ON_CONTROL, *words))
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    ctx.exit(done.returncode)
