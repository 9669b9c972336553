"""The command holdfast-trust: its options, and the groups of commands."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast_trust.agent_commands import agent
from holdfast_trust.kill_commands import kill
from holdfast_trust.ledger_commands import ledger_group
from holdfast_trust.member_commands import service, team, user
from holdfast_trust.terminal import Group, Lifetime, Settings, as_json, emit, login, said
from holdfast_trust.token_commands import token


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--database", envvar="HOLDFAST_TRUST_DATABASE", help="URL of the identity database.")
@click.option(
    "--ledger",
    envvar="HOLDFAST_TRUST_LEDGER",
    type=click.Path(path_type=Path),
    help="Folder of the ledger that changes are recorded on.",
)
@click.option(
    "--actor", envvar="HOLDFAST_TRUST_ACTOR", help="Who the ledger says did it; you by default."
)
@click.option(
    "--max-lifetime",
    envvar="HOLDFAST_TRUST_MAX_LIFETIME",
    type=Lifetime(),
    default="never",
    help="Longest life of a user's token, like 720h; services are exempt.  [default: no bound]",
)
@click.pass_context
def main(
    ctx: click.Context,
    database: str | None,
    ledger: Path | None,
    actor: str | None,
    max_lifetime: int,
) -> None:
    """Users, services, teams, tokens and agents of a site, and the ledger of their changes."""
    ctx.obj = Settings(database, ledger, actor or login(), max_lifetime)


@main.command()
@click.option("--reader", "readers", multiple=True, help="PostgreSQL role that may read.")
@as_json
@click.pass_obj
def init(settings: Settings, readers: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 - click
    """Create the tables and the ledger where missing; bring older tables up to date."""
    with settings.store(changes=True) as store:
        changed = store.create_schema(readers)
    emit(
        {"changed": changed},
        said(changed, "identity database created", "identity database is there already"),
        as_json=as_json,
    )


for _group in (user, service, team, token, agent, kill, ledger_group):
    main.add_command(_group)
