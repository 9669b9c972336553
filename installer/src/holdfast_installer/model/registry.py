"""The registry's own commands, run on the control host; the admin plane is SSH."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from holdfast_installer.console import console
from holdfast_installer.errors import HoldfastError
from holdfast_installer.remote import operator_name, run_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_installer.site import Site

# The model_registry role installs this wrapper: it runs the registry's program as its own user,
# with its settings.
ON_CONTROL: Final = "/usr/local/sbin/holdfast-model-registry"
ON_SERVING: Final = ("/usr/bin/python3", "-I", "/usr/local/lib/holdfast/approval.py")
TOKEN: Final = "HOLDFAST_TOKEN"  # noqa: S105 - the variable's name

token_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Act as the user of this token, not as the operator; {TOKEN} holds one as well.",
)


def secret(token_file: Path | None) -> str:
    """Return the token to act with, '' for none; HoldfastError where the file holds none."""
    if token_file is None:
        return os.environ.get(TOKEN, "").strip()
    try:
        found = token_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        found, cause = "", error.strerror or str(error)
    else:
        cause = "the file is empty"
    if not found:
        raise HoldfastError(
            "There is no token to act with.",
            where=str(token_file),
            cause=cause,
            next_command="holdfast token issue NAME --output FILE",
        )
    return found


def run_registry(site: Site, arguments: Sequence[str], *, token: str = "") -> tuple[int, str, str]:
    """Run one command of the registry; return its exit code and what it said.

    The token goes over standard input: it never stands in a list of processes.
    """
    actor = f"HOLDFAST_TRUST_ACTOR={operator_name()}"
    by = ("--token-file", "-") if token else ()
    command = ("env", actor, ON_CONTROL, *arguments, *by)
    done = run_on(site, site.with_role("control")[0], command, given=token)
    return done.returncode, done.stdout, done.stderr


def forward(site: Site, arguments: Sequence[str], *, token: str = "") -> int:
    """Do as `run_registry`, and say here what it said there; return its exit code."""
    code, answer, said = run_registry(site, arguments, token=token)
    click.echo(answer, nl=False)
    click.echo(said, nl=False, err=True)
    return code


def tell_hosts(site: Site, model: str) -> None:
    """Have the serving hosts look at a model at once: they would by themselves within minutes."""
    for host in site.with_role("serving"):
        try:
            done = run_on(site, host, (*ON_SERVING, "--now", model))
            problem = done.stderr.strip()[-300:] if done.returncode else ""
        except HoldfastError as error:
            problem = error.cause or error.problem
        if problem:
            console.print(
                f"{host.name} could not be told, and looks by itself within minutes: {problem}",
                markup=False,
                soft_wrap=True,
            )
