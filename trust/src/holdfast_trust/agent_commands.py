"""The commands of agents."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from holdfast_trust import token_file
from holdfast_trust.agents import ISSUED_AS, LONGEST_HOURS
from holdfast_trust.errors import TrustError
from holdfast_trust.hours import checked_hours
from holdfast_trust.scopes import VERBS, checked_scope
from holdfast_trust.terminal import Settings, as_json, emit, examples, said, table
from holdfast_trust.token_commands import tell_issued, tell_kept

_VERBS = tuple(verb for verb in VERBS if verb != "admin")
_COLUMNS = ("name", "owner", "state", "expires_at", "hours", "scope")


@click.group()
def agent() -> None:
    """Agents: programs that act for a user, for hours, with less than the user's rights."""


@agent.command(
    name="create",
    epilog=examples(
        "holdfast-trust agent create scout --for ada --hours-to-live 8 --model holdfast/starter",
        "holdfast-trust agent create night --for ada --hours-to-live 72 --model 'research/*' "
        "--hours 22-06",
        "holdfast-trust agent create loader --for ada --hours-to-live 1 --verb read "
        "--repo research/tiny --output loader.token",
    ),
)
@click.argument("name")
@click.option("--for", "owner", required=True, metavar="USER", help="The user it acts for.")
@click.option(
    "--hours-to-live",
    type=click.IntRange(1, LONGEST_HOURS),
    required=True,
    help="After so many hours it ends; the site's profiles may permit fewer.",
)
@click.option(
    "--model",
    "--repo",
    "repositories",
    multiple=True,
    required=True,
    metavar="ORG/NAME",
    help="A model it may ask, or repository it may use, or all of ORG/*; may be repeated.",
)
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    type=click.Choice(_VERBS),
    default=("infer",),
    show_default=True,
    help="Let it do this and what is below it, no more; may be repeated.",
)
@click.option(
    "--team",
    "teams",
    multiple=True,
    help="Let only this team of its owner's count; may be repeated.  [default: all of theirs]",
)
@click.option(
    "--hours",
    metavar="FROM-TO",
    help="Let it act at these hours only, in UTC, like 08-18 or 22:30-06.  [default: at any]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write its token to this file (0600) and print it nowhere.",
)
@as_json
@click.pass_obj
def agent_create(  # noqa: PLR0913 - a command has as many parameters as options
    settings: Settings,
    *,
    name: str,
    owner: str,
    hours_to_live: int,
    repositories: tuple[str, ...],
    verbs: tuple[str, ...],
    teams: tuple[str, ...],
    hours: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make an agent and show its token, once.

    At each request it may do what it was given and its owner may, whichever is less. What ends
    every token of its owner's ends it too.
    """
    seconds = hours_to_live * 3600
    if settings.longest and seconds > settings.longest:
        longest = settings.longest // 3600
        raise TrustError(
            f"no agent {name}: it would live longer than this site permits",
            cause=f"the site's profiles bound tokens to {longest} hours",
            next_command=f"holdfast-trust agent create {name} --for {owner} "
            f"--hours-to-live {longest} …",
        )
    scope = checked_scope(verbs, teams, repositories)
    bounds = None if hours is None else checked_hours(hours)
    with settings.store(changes=True) as store:
        kept = token_file.holds_valid(store, output, name, ISSUED_AS) if output else None
        if output and kept:
            tell_kept(kept, output, as_json=as_json)
            return
        with token_file.place(output) if output else nullcontext() as file:
            issued = store.create_agent(
                name, owner, lifetime_seconds=seconds, scope=scope, hours=bounds
            )
            if file:
                file.keep(issued.secret)
    more: dict[str, object] = {
        "owner": owner,
        "scope": scope.as_dict(),
        "hours": None if bounds is None else str(bounds),
    }
    tell_issued(issued, output, more, as_json=as_json)


@agent.command(name="list")
@click.option("--for", "owner", metavar="USER", help="Only those that act for this user.")
@as_json
@click.pass_obj
def agent_list(settings: Settings, owner: str | None, as_json: bool) -> None:  # noqa: FBT001 - click
    """List the agents: whether they are at work, for whom, until when, for what."""
    with settings.store() as store:
        rows = store.agents(owner=owner)
    emit(rows, table(rows, _COLUMNS), as_json=as_json)


@agent.command(name="show")
@click.argument("name")
@as_json
@click.pass_obj
def agent_show(settings: Settings, name: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Show one agent with its tokens and the rights that its owner lends it now."""
    with settings.store() as store:
        found = store.agents(name=name)[0]
        tokens = store.tokens(name)
        lent = store.teams_of(str(found["owner"])) or {}
    text = table([found], _COLUMNS)
    text += f"\n\nTeams of {found['owner']}: {', '.join(lent) or 'none'}\n\n"
    text += table(tokens, ("id", "name", "last_four", "state", "expires_at", "scope"))
    emit({**found, "owner_teams": lent, "tokens": tokens}, text, as_json=as_json)


@agent.command(name="end", epilog=examples("holdfast-trust agent end scout"))
@click.argument("name")
@as_json
@click.pass_obj
def agent_end(settings: Settings, name: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """End an agent for good; what it has in flight ends within a second."""
    with settings.store(changes=True) as store:
        changed = store.end_agent(name)
    emit(
        {"changed": changed, "name": name},
        said(changed, f"agent {name} ended", f"agent {name} was ended already"),
        as_json=as_json,
    )
