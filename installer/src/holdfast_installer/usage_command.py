"""`holdfast usage`: requests, tokens, cost and energy of a running site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from holdfast_installer.console import json_option, site_option
from holdfast_installer.remote import run_on
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from pathlib import Path

# The gateway role installs this wrapper: it runs the gateway's program as its own user.
ON_CONTROL: Final = "/usr/local/sbin/holdfast-gateway"


@click.command()
@site_option
@click.option(
    "--by",
    metavar="NAME,...",
    help="Add up by these, model,user if none is said: model, revision, user, agent, key, team, "
    "session, day, endpoint, replica, gateway.",
)
@click.option("--since", metavar="WHEN", help="From then on: 2026-11-20, 2026-11-20T08:00, 7d.")
@click.option("--until", metavar="WHEN", help="Before then.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "json", "table"]),
    default="table",
    show_default=True,
    help="For people, spreadsheets or programs.",
)
@json_option
@click.option(
    "--check",
    is_flag=True,
    help="Compare with the replicas' own counters instead; without --since of the last day.",
)
@click.pass_context
def usage(
    ctx: click.Context,
    *,
    site_path: Path,
    by: str | None,
    since: str | None,
    until: str | None,
    form: str,
    as_json: bool,
    check: bool,
) -> None:
    """Add up the site's requests, tokens, cost and energy.

    Times are UTC. What nobody measured or declared is shown as unknown. With --check it ends with 3
    where the table and the replicas disagree without a reason that the table shows.

    \b
    holdfast usage --by team,day --since 7d --site site.yml
    holdfast usage --by session --format csv --site site.yml > sessions.csv
    holdfast usage --check --since 24h --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["usage"]
    for option, value in (("--by", by), ("--since", since), ("--until", until)):
        words += [option, value] if value is not None else []
    words += ["--format", "json" if as_json else form]
    words += ["--check"] if check else []
    site = load_site(site_path)
    done = run_on(site, site.with_role("control")[0], (ON_CONTROL, *words))
    click.echo(done.stdout, nl=False)
    click.echo(done.stderr, nl=False, err=True)
    ctx.exit(done.returncode)
