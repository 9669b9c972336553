"""People, teams, tokens, agents of a site: the commands of holdfast-trust on the control host.

The options and their help are those of holdfast-trust itself; only `--site` is added. The admin
plane is SSH: there is no service that would take such orders over the network.
"""

from __future__ import annotations

import getpass
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

import holdfast_trust.cli
from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.console import console, site_option
from holdfast_installer.errors import EXIT_FAILED, HoldfastError
from holdfast_installer.remote import run_on
from holdfast_installer.site_file import load_site
from holdfast_trust.agents import ISSUED_AS

if TYPE_CHECKING:
    from holdfast_installer.site import Site

# The identity role installs this wrapper: it runs holdfast-trust as its own user, with its database
# and its ledger.
ON_CONTROL = "/usr/local/sbin/holdfast-trust"
CA_CERTIFICATE = "/etc/holdfast/tls/ca.pem"
RAW = "holdfast.arguments"
# What is stopped, or outside its hours, has not ended: it is not issued anew.
_HELD = {"valid", "stopped", "hours"}


class _RemoteCommand(click.Command):
    """Parse like the command of holdfast-trust, then run that on the control host."""

    def __init__(self, original: click.Command, path: tuple[str, ...]) -> None:
        super().__init__(
            original.name,
            params=[*original.params, *_parameters(site_option)],
            help=original.help,
            epilog=(original.epilog or "").replace("holdfast-trust ", "holdfast ") or None,
            callback=None,
        )
        self._path = path

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[RAW] = _without(args, "--site")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        site = load_site(ctx.params["site_path"])
        output = ctx.params.get("output")
        if output is not None:
            _issue_into(site, ctx, self._path, output)
            return
        done = _on_control(site, (*self._path, *ctx.meta[RAW]))
        click.echo(done[1], nl=False)
        click.echo(done[2], nl=False, err=True)
        ctx.exit(done[0])


def _parameters(option: object) -> list[click.Parameter]:
    """Return the parameters that a click option decorator would add."""

    @option  # type: ignore[operator] # click types its decorators as Callable[[F], F]
    def bare() -> None: ...

    return list(bare.__click_params__)


def _without(arguments: list[str], option: str) -> list[str]:
    """Return the arguments less one option and its value, in either way of writing it."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


def _on_control(site: Site, arguments: tuple[str, ...]) -> tuple[int, str, str]:
    control = site.with_role("control")[0]
    actor = f"HOLDFAST_TRUST_ACTOR={getpass.getuser()}@{platform.node()}"
    done = run_on(site, control, ("env", actor, ON_CONTROL, *arguments))
    return done.returncode, done.stdout, done.stderr


def _issue_into(site: Site, ctx: click.Context, path: tuple[str, ...], output: Path) -> None:
    """Issue a token whose secret goes to a file here; keep the file while its token holds.

    A valid token that the file does not hold is in use elsewhere: it ends only with --rotate.
    """
    given = ctx.params
    if path == ("agent", "create"):
        principal, name = given["name"], ISSUED_AS
    else:
        principal, name = given["principal"], given["name"]
    if output.exists() and not given.get("rotate"):
        last_four = output.read_text().strip()[-4:]
        code, listed, said = _on_control(site, ("token", "list", principal, "--json"))
        if code == 0 and any(
            row["last_four"] == last_four and row["name"] == name and row["state"] in _HELD
            for row in json.loads(listed)
        ):
            console.print(f"{output} holds a valid token already")
            return
    _check_writable(output)
    arguments = [*_without(ctx.meta[RAW], "--output"), "--json"]
    code, answer, said = _on_control(site, (*path, *arguments))
    if code != 0:
        raise HoldfastError(
            f"No token for {principal}.",
            where=f"holdfast-trust on {site.with_role('control')[0].name}",
            cause=said.strip(),
            next_command=f"holdfast token list {principal} --site SITE.yml",
        )
    issued = json.loads(answer)
    secret = issued.pop("token")
    try:
        write_atomically(output, f"{secret}\n".encode(), mode=0o600)
    except OSError as error:
        raise HoldfastError(
            f"A token for {principal} was issued and lost: its file cannot be written.",
            where=str(output),
            cause=error.strerror or str(error),
            next_command=f"holdfast token issue {principal} --name {name} --rotate --output FILE",
        ) from error
    if ctx.params["as_json"]:
        click.echo(json.dumps({**issued, "output": str(output)}, indent=2))
    console.print(f"token written to {output}")


def _check_writable(output: Path) -> None:
    """Refuse before a token is issued whose secret would be lost."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise HoldfastError(
            "No token was issued: its file cannot be written.",
            where=str(output),
            cause=error.strerror or str(error),
            next_command="give --output a file in a folder that you may write",
        ) from error


def _remote(group: click.Group, path: tuple[str, ...]) -> click.Group:
    """Return the group with every command run on the control host instead of here."""
    twin = click.Group(group.name, help=group.help)
    for name, command in group.commands.items():
        here = (*path, name)
        if isinstance(command, click.Group):
            twin.add_command(_remote(command, here), name)
        else:
            twin.add_command(_RemoteCommand(command, here), name)
    return twin


def _group(name: str) -> click.Group:
    found = holdfast_trust.cli.main.commands[name]
    if not isinstance(found, click.Group):
        raise TypeError(f"holdfast-trust {name} is not a group")
    return _remote(found, (name,))


user = _group("user")
team = _group("team")
token = _group("token")
agent = _group("agent")
kill = _group("kill")
ledger = _group("ledger")


@click.command()
@site_option
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File; stdout by default."
)
def ca(*, site_path: Path, output: Path | None) -> None:
    """Fetch the certificate of the site's own authority, which clients need to trust."""
    site = load_site(site_path)
    control = site.with_role("control")[0]
    done = run_on(site, control, ("cat", CA_CERTIFICATE))
    if done.returncode != 0:
        raise HoldfastError(
            "The site has no certificate authority yet.",
            where=f"{control.name}:{CA_CERTIFICATE}",
            cause=done.stderr.strip(),
            next_command=f"holdfast apply --site {site_path} --bundle DIR",
            exit_code=EXIT_FAILED,
        )
    if output is None:
        sys.stdout.write(done.stdout)
        return
    output.write_text(done.stdout)
    console.print(f"CA certificate written to {output}")
