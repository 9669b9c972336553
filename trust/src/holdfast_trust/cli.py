"""The command holdfast-trust: options in, a store or a ledger called, an answer out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast_trust import ledger as ledgers
from holdfast_trust import token_file
from holdfast_trust.errors import TrustError
from holdfast_trust.terminal import (
    EXIT_REFUSED,
    Group,
    Lifetime,
    Settings,
    as_json,
    emit,
    login,
    said,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_trust.principals import Kind
    from holdfast_trust.store import TrustStore

_USER_LIFETIME = 90 * 86400


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
    """Users, services, teams and tokens of a Holdfast site, and the ledger of their changes."""
    ctx.obj = Settings(database, ledger, actor or login(), max_lifetime)


@main.command()
@click.option("--reader", "readers", multiple=True, help="PostgreSQL role that may read.")
@as_json
@click.pass_obj
def init(settings: Settings, readers: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 - click
    """Create the tables and the ledger where they are missing."""
    with settings.store(changes=True) as store:
        changed = store.create_schema(readers)
    emit(
        {"changed": changed},
        said(changed, "identity database created", "identity database is there already"),
        as_json=as_json,
    )


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
        text = table(rows, ("name", "teams", "created_at", "disabled"))
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


main.add_command(_principal_commands("user"))
main.add_command(_principal_commands("service"))


@main.group()
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
    """List the teams and who is in them."""
    with settings.store() as store:
        rows = store.teams()
    emit(rows, table(rows, ("name", "members")), as_json=as_json)


@team.group()
def member() -> None:
    """Who is in a team."""


def _membership(verb: str, text: str, call: Callable[[TrustStore], Callable[..., bool]]) -> None:
    @member.command(name=verb, help=text)
    @click.argument("team")
    @click.argument("principal")
    @as_json
    @click.pass_obj
    def command(settings: Settings, team: str, principal: str, as_json: bool) -> None:  # noqa: FBT001 - click
        with settings.store(changes=True) as store:
            changed = call(store)(team, principal)
        state = "is in" if verb == "add" else "is not in"
        emit(
            {"changed": changed, "team": team, "principal": principal},
            f"{principal} {state} {team}{'' if changed else ' already'}",
            as_json=as_json,
        )


_membership("add", "Put a user or service in a team.", lambda store: store.add_member)
_membership("remove", "Take a user or service out of a team.", lambda store: store.remove_member)


@main.group()
def token() -> None:
    """Tokens: shown once when issued, stored as a hash."""


@token.command(name="issue")
@click.argument("principal")
@click.option("--name", default="default", show_default=True, help="What the token is for.")
@click.option(
    "--expires",
    type=Lifetime(),
    help="90d, 12h, 30m, 45s or never; a site may bound it.  "
    "[default: 90d or the bound for a user, never for a service]",
)
@click.option("--rotate", is_flag=True, help="Replace a valid token of this name.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the secret to this file (0600) and print it nowhere; "
    "nothing is issued while the file holds a valid token.",
)
@as_json
@click.pass_obj
def token_issue(  # noqa: PLR0913 - a command has as many parameters as options
    settings: Settings,
    *,
    principal: str,
    name: str,
    expires: int | None,
    rotate: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Issue a token to a user or service and show its secret, once."""
    with settings.store(changes=True) as store:
        if output and not rotate:
            kept = token_file.holds_valid(store, output, principal, name)
            if kept:
                emit(
                    {"changed": False, "token_id": kept, "output": str(output)},
                    f"{output} holds a valid token already",
                    as_json=as_json,
                )
                return
        expires = _lifetime(settings, store.kind_of(principal), principal, expires)
        issued = store.issue_token(
            principal, name, lifetime_seconds=expires or None, rotate=rotate or output is not None
        )
        if output:
            token_file.write(output, issued)
    data: dict[str, object] = {
        "changed": True,
        "token_id": issued.token_id,
        "principal": principal,
        "name": name,
        "last_four": issued.last_four,
        "expires_at": issued.expires_at,
    }
    if output:
        emit({**data, "output": str(output)}, f"token written to {output}", as_json=as_json)
        return
    if not as_json:
        click.echo(f"token {name!r} of {principal}; it is not shown again:", err=True)
    emit({**data, "token": issued.secret}, issued.secret, as_json=as_json)


def _lifetime(settings: Settings, kind: Kind, principal: str, asked: int | None) -> int:
    """Return the seconds that a token shall live, 0 for ever; a service's know no bound."""
    if kind != "user":
        return asked or 0
    longest = settings.longest
    if asked is None:
        return min(_USER_LIFETIME, longest or _USER_LIFETIME)
    if longest and (not asked or asked > longest):
        hours = f"{longest / 3600:g}h"
        raise TrustError(
            f"no token for {principal}: it would live longer than this site permits",
            cause=f"the site's profiles bound users' tokens to {hours}; services are exempt",
            next_command=f"holdfast-trust token issue {principal} --expires {hours}",
        )
    return asked


@token.command(name="list")
@click.argument("principal", required=False)
@as_json
@click.pass_obj
def token_list(settings: Settings, principal: str | None, as_json: bool) -> None:  # noqa: FBT001 - click
    """List tokens by their last four characters, whether they hold, and until when."""
    with settings.store() as store:
        rows = store.tokens(principal)
    columns = ("id", "principal", "name", "last_four", "state", "expires_at")
    emit(rows, table(rows, columns), as_json=as_json)


@token.command(name="revoke")
@click.argument("token_id", required=False)
@click.option("--principal", help="End every token of this user or service.")
@as_json
@click.pass_obj
def token_revoke(
    settings: Settings,
    token_id: str | None,
    principal: str | None,
    as_json: bool,  # noqa: FBT001 - click
) -> None:
    """End a token, or all of a principal's; services refuse it within a second."""
    if (token_id is None) == (principal is None):
        raise click.UsageError("give either a token's id or --principal")
    with settings.store(changes=True) as store:
        if principal is not None:
            store.revoke_all(principal)
            emit(
                {"changed": True, "principal": principal},
                f"every token of {principal} is revoked",
                as_json=as_json,
            )
            return
        changed = store.revoke_token(str(token_id))
    emit(
        {"changed": changed, "token_id": token_id},
        said(changed, f"token {token_id} revoked", f"token {token_id} was revoked already"),
        as_json=as_json,
    )


@main.group(name="ledger")
def ledger_group() -> None:
    """Check the ledger, and hand its checkpoints to a witness."""


def _folder(settings: Settings, folder: Path | None) -> Path:
    chosen = folder or settings.ledger
    if chosen is None:
        raise click.UsageError("which ledger? Give its folder, or --ledger.")
    return chosen


@ledger_group.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@as_json
@click.pass_obj
def checkpoint(settings: Settings, folder: Path | None, as_json: bool) -> None:  # noqa: FBT001 - click
    """Sign the ledger's present state and print the note, to be kept by somebody else."""
    with ledgers.Ledger(_folder(settings, folder)) as ledger:
        signed = ledger.checkpoint()
    data = {"origin": signed.origin, "size": signed.size, "root": signed.root.hex()}
    emit({**data, "note": signed.note}, signed.note.rstrip("\n"), as_json=as_json)


@ledger_group.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A note that a witness kept; may be repeated.",
)
@click.option("--public-key", help="The ledger's key.pub as it was kept elsewhere.")
@as_json
@click.pass_obj
def verify(
    settings: Settings,
    folder: Path | None,
    checkpoints: tuple[Path, ...],
    public_key: str | None,
    as_json: bool,  # noqa: FBT001 - click
) -> None:
    """Recompute a ledger from its files and compare it with its checkpoints; exit 3 if it fails."""
    notes = [path.read_text(encoding="utf-8") for path in checkpoints]
    report = ledgers.verify(_folder(settings, folder), public_key=public_key, anchors=notes)
    lines = [f"{each.verdict}: {each.name}: {each.detail}" for each in report.findings]
    lines.append(
        f"{'ok' if report.ok else 'NOT ok'}: {report.entries} entries, {report.covered} of them "
        f"under {report.checkpoints} signed checkpoints of {report.origin}; root {report.root}"
    )
    emit(report.as_dict(), "\n".join(lines), as_json=as_json)
    if not report.ok:
        sys.exit(EXIT_REFUSED)
