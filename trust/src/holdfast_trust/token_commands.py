"""The commands of tokens."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holdfast_trust import token_file
from holdfast_trust.errors import TrustError
from holdfast_trust.scopes import VERBS, checked_scope
from holdfast_trust.terminal import Lifetime, Settings, as_json, emit, examples, said, table

if TYPE_CHECKING:
    from holdfast_trust.principals import Kind
    from holdfast_trust.store import IssuedToken

_USER_LIFETIME = 90 * 86400


@click.group()
def token() -> None:
    """Tokens: shown once when issued, stored as a hash."""


@token.command(
    name="issue",
    epilog=examples(
        "holdfast-trust token issue ada --name laptop",
        "holdfast-trust token issue ada --name ci --verb write --repo research/tiny --expires 30d",
        "holdfast-trust token issue ada --name notebook --verb read --verb infer --team research",
        "holdfast-trust token issue ada --name mirror --verb read --repo 'research/*'",
    ),
)
@click.argument("principal")
@click.option("--name", default="default", show_default=True, help="What the token is for.")
@click.option(
    "--expires",
    type=Lifetime(),
    help="90d, 12h, 30m, 45s or never; a site may bound it.  "
    "[default: 90d or the bound for a user, never for a service]",
)
@click.option(
    "--verb",
    "verbs",
    multiple=True,
    type=click.Choice(VERBS),
    help="Let it do this and what is below it, no more; may be repeated.  [default: all]",
)
@click.option(
    "--team",
    "teams",
    multiple=True,
    help="Let only what its owner may as a member of this team count; their own name stands for "
    "their personal namespace; may be repeated.  [default: all of theirs]",
)
@click.option(
    "--repo",
    "repositories",
    multiple=True,
    metavar="ORG/NAME",
    help="Bind it to this repository, or to all of ORG/*; may be repeated.  [default: any]",
)
@click.option(
    "--rotate",
    is_flag=True,
    help="Replace a valid token of this name; what it is bound to stays unless given.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the secret to this file (0600) and print it nowhere; nothing is issued while "
    "the file holds a valid token, and none that is in use elsewhere ends without --rotate.",
)
@as_json
@click.pass_obj
def token_issue(  # noqa: PLR0913 - a command has as many parameters as options
    settings: Settings,
    *,
    principal: str,
    name: str,
    expires: int | None,
    verbs: tuple[str, ...],
    teams: tuple[str, ...],
    repositories: tuple[str, ...],
    rotate: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Issue a token to a user or service and show its secret, once.

    It may do what its owner may, or less: by verb, by team, by repository.
    """
    bound = verbs or teams or repositories
    scope = checked_scope(verbs, teams, repositories) if bound else None
    with settings.store(changes=True) as store:
        if output and not rotate:
            kept = token_file.holds_valid(store, output, principal, name)
            if kept:
                tell_kept(kept, output, as_json=as_json)
                return
        expires = _lifetime(settings, store.kind_of(principal), principal, expires)
        with token_file.place(output) if output else nullcontext() as file:
            issued = store.issue_token(
                principal, name, lifetime_seconds=expires or None, rotate=rotate, scope=scope
            )
            if file:
                file.keep(issued.secret)
    tell_issued(issued, output, {"scope": issued.scope.as_dict()}, as_json=as_json)


def tell_kept(token_id: str, output: Path, *, as_json: bool) -> None:
    """Say that nothing was issued, because the file holds a token that is valid."""
    emit(
        {"changed": False, "token_id": token_id, "output": str(output)},
        f"{output} holds a valid token already",
        as_json=as_json,
    )


def tell_issued(
    issued: IssuedToken, output: Path | None, more: dict[str, object], *, as_json: bool
) -> None:
    """Say what was issued: the secret, alone on standard output, unless it is in a file."""
    data: dict[str, object] = {
        "changed": True,
        "token_id": issued.token_id,
        "principal": issued.principal,
        "name": issued.name,
        "last_four": issued.last_four,
        "expires_at": issued.expires_at,
        **more,
    }
    if output:
        emit({**data, "output": str(output)}, f"token written to {output}", as_json=as_json)
        return
    if not as_json:
        click.echo(f"token {issued.name!r} of {issued.principal}; it is not shown again:", err=True)
    emit({**data, "token": issued.secret}, issued.secret, as_json=as_json)


def _lifetime(settings: Settings, kind: Kind, principal: str, asked: int | None) -> int:
    """Return the seconds that a token shall live, 0 for ever; a service's know no bound.

    An agent's end with the agent, whatever is asked for.
    """
    longest = settings.longest
    if kind == "service":
        return asked or 0
    if kind == "agent":
        return min(asked or longest, longest) if longest else asked or 0
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
    """List tokens by their last four characters: whether they hold, until when, for what."""
    with settings.store() as store:
        rows = store.tokens(principal)
    columns = ("id", "principal", "name", "last_four", "state", "expires_at", "scope")
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
