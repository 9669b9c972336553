"""The commands of users, services and teams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast_trust.principals import ROLES
from holdfast_trust.terminal import Settings, as_json, emit, examples, said, table

if TYPE_CHECKING:
    from holdfast_trust.principals import Kind, Role


def _principal_commands(kind: Kind) -> click.Group:
    """Build the like commands of users and services."""

    @click.group(name=kind)
    def group() -> None:
        pass

    group.help = f"The {kind}s of the site."

    @group.command(name="add")
    @click.argument("name")
    @click.option("--team", "teams", multiple=True, help="Team to be in; may be repeated.")
    @as_json
    @click.pass_obj
    def add(settings: Settings, name: str, teams: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 - click
        with settings.store(changes=True) as store:
            method = store.add_user if kind == "user" else store.add_service
            changed = method(name, teams)
        emit(
            {"changed": changed, "name": name, "kind": kind, "teams": list(teams)},
            said(changed, f"{kind} {name} added", f"{kind} {name} is there already"),
            as_json=as_json,
        )

    add.help = f"Add a {kind}; one that exists is left as it is, but joins the teams named."

    @group.command(name="list")
    @as_json
    @click.pass_obj
    def list_them(settings: Settings, as_json: bool) -> None:  # noqa: FBT001 - click
        with settings.store() as store:
            rows = store.principals(kind)
        text = table(rows, ("name", "roles", "created_at", "disabled"))
        emit(rows, text, as_json=as_json)

    list_them.help = f"List the {kind}s."

    def toggle(verb: str, text: str, *, disabled: bool) -> None:
        @group.command(name=verb, help=text)
        @click.argument("name")
        @as_json
        @click.pass_obj
        def command(settings: Settings, name: str, as_json: bool) -> None:  # noqa: FBT001 - click
            with settings.store(changes=True) as store:
                changed = store.set_disabled(name, disabled=disabled, kind=kind)
            emit(
                {"changed": changed, "name": name},
                said(changed, f"{kind} {name} {verb}d", f"{kind} {name} was {verb}d already"),
                as_json=as_json,
            )

    toggle("disable", f"Bar a {kind} and end every token of theirs.", disabled=True)
    toggle("enable", f"Admit a barred {kind} again; tokens must be issued anew.", disabled=False)
    return group


user = _principal_commands("user")
service = _principal_commands("service")


@click.group()
def team() -> None:
    """Teams: what policies grant rights to."""


@team.command(name="add")
@click.argument("name")
@as_json
@click.pass_obj
def team_add(settings: Settings, name: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Add a team."""
    with settings.store(changes=True) as store:
        changed = store.add_team(name)
    emit(
        {"changed": changed, "name": name},
        said(changed, f"team {name} added", f"team {name} is there already"),
        as_json=as_json,
    )


@team.command(name="list")
@as_json
@click.pass_obj
def team_list(settings: Settings, as_json: bool) -> None:  # noqa: FBT001 - click
    """List the teams, and who is in them with which role."""
    with settings.store() as store:
        rows = store.teams()
    emit(rows, table(rows, ("name", "roles")), as_json=as_json)


@team.group()
def member() -> None:
    """Who is in a team."""


@member.command(
    name="add",
    epilog=examples(
        "holdfast-trust team member add research ada",
        "holdfast-trust team member add research ada --role write",
    ),
)
@click.argument("team")
@click.argument("principal")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="What they may do with what the team owns; each includes those before it.  "
    "[default: read for who is new, as it is for who is a member]",
)
@as_json
@click.pass_obj
def member_add(
    settings: Settings,
    team: str,
    principal: str,
    role: Role | None,
    as_json: bool,  # noqa: FBT001 - click
) -> None:
    """Put a user or service in a team, or give a member another role."""
    with settings.store(changes=True) as store:
        changed = store.add_member(team, principal, role)
        held = store.role_in(team, principal)
    emit(
        {"changed": changed, "team": team, "principal": principal, "role": held},
        f"{principal} is in {team} with the role {held}{'' if changed else ' already'}",
        as_json=as_json,
    )


@member.command(name="remove")
@click.argument("team")
@click.argument("principal")
@as_json
@click.pass_obj
def member_remove(settings: Settings, team: str, principal: str, as_json: bool) -> None:  # noqa: FBT001 - click
    """Take a user or service out of a team."""
    with settings.store(changes=True) as store:
        changed = store.remove_member(team, principal)
    emit(
        {"changed": changed, "team": team, "principal": principal},
        f"{principal} is not in {team}{'' if changed else ' already'}",
        as_json=as_json,
    )
