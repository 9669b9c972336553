"""`holdfast model`: import, look, approve, quarantine, reject; the group that others add to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from holdfast_installer.console import json_option, site_option
from holdfast_installer.converge.command import apply
from holdfast_installer.model import provenance_command, storage_command
from holdfast_installer.model.registry import forward, secret, tell_hosts, token_option
from holdfast_installer.site_file import load_site

STATES = ("quarantined", "scanned", "approved", "rejected")


@click.group()
def model() -> None:
    """Models of the running site: what waits, what is served, and who says so.

    \b
    holdfast model import --site site.yml --bundle bundle
    holdfast model list --state scanned --site site.yml
    holdfast model approve org/name --token-file ada.token --site site.yml
    holdfast model quarantine org/name --note "wrong licence" --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are


for _command in (
    storage_command.gc,
    storage_command.check,
    storage_command.usage,
    storage_command.backup,
    provenance_command.verify,
    provenance_command.replicate,
):
    model.add_command(_command)


@model.command("import")
@site_option
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    show_default=True,
    help="The bundle's folder; it is verified first.",
)
@json_option
@click.pass_context
def import_command(ctx: click.Context, *, site_path: Path, bundle: Path, as_json: bool) -> None:
    """Bring the site's models from the bundle into its registry, and serve nothing yet.

    Your word for what you bring in counts as one approval. `holdfast apply` serves what is
    approved.

    \b
    holdfast model import --site site.yml --bundle bundle
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    ctx.invoke(
        apply,
        site_path=site_path,
        bundle=bundle,
        check=False,
        capabilities=("bundle", "model_registry"),
        journal=None,
        as_json=as_json,
    )


@model.command("list")
@site_option
@click.option("--state", type=click.Choice(STATES), help="Only revisions in this state.")
@click.option("--model", "name", metavar="ORG/NAME", help="Only revisions of this one.")
@json_option
@click.pass_context
def list_command(
    ctx: click.Context, *, site_path: Path, state: str | None, name: str | None, as_json: bool
) -> None:
    """List the revisions in the site's registry with their states, newest change first.

    \b
    holdfast model list --site site.yml
    holdfast model list --state quarantined --json --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["model", "list"]
    words += ["--state", state] if state else []
    words += ["--model", name] if name else []
    words += ["--json"] if as_json else []
    ctx.exit(forward(load_site(site_path), words))


@model.command("show")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@site_option
@json_option
@click.pass_context
def show(ctx: click.Context, *, revision: str, site_path: Path, as_json: bool) -> None:
    """Show one revision's review: findings, approvals, history; main if no revision is said.

    \b
    holdfast model show org/name@0123456789ab --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["model", "show", revision, *(["--json"] if as_json else [])]
    ctx.exit(forward(load_site(site_path), words))


@model.command("access")
@click.argument("name", metavar="ORG/NAME")
@site_option
@click.option("--dataset", is_flag=True, help="A data set, not a model.")
@click.option(
    "--team",
    "teams",
    multiple=True,
    metavar="TEAM",
    help="Just these read it, beside the team in its name; may be repeated.",
)
@click.option("--no-team", is_flag=True, help="No team but the one in its name reads it.")
@click.option("--jurisdiction", metavar="NAME", help="Label it so.")
@click.option("--classification", metavar="NAME", help="Label it so.")
@json_option
@click.pass_context
def access(ctx: click.Context, /, *, name: str, site_path: Path, **options: Any) -> None:  # noqa: ANN401 - handed on as they are
    """Show who reads a repository and its labels; with options, change them.

    \b
    holdfast model access org/name --site site.yml
    holdfast model access org/name --team research --team press --site site.yml
    holdfast model access org/name --classification confidential --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["model", "access", name]
    for team in options["teams"]:
        words += ["--team", team]
    for label in ("jurisdiction", "classification"):
        words += [f"--{label}", options[label]] if options[label] else []
    for flag in ("dataset", "no_team"):
        words += [f"--{flag.replace('_', '-')}"] if options[flag] else []
    words += ["--json"] if options["as_json"] else []
    ctx.exit(forward(load_site(site_path), words))


@model.command("approve")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@site_option
@click.option("--note", default="", help="What others should know.")
@token_option
@json_option
@click.pass_context
def approve(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - handed on as they are
    """Let a revision be served; where the profiles ask for two people, each says so once.

    With a token its user approves, who must be a reviewer or an operator of the site. Without one
    it is you, as operator: that counts once, as does what you brought in. Ends with 3 if the policy
    or the other person stands in the way.

    \b
    holdfast model approve org/name --site site.yml
    holdfast model approve org/name@0123456789ab --token-file ada.token --note "as published"
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    _decide(ctx, "approve", **options)


@model.command("quarantine")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@site_option
@click.option("--note", required=True, help="Why; whoever is refused it will read this.")
@token_option
@json_option
@click.pass_context
def quarantine(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - handed on as they are
    """Take a revision back: only its writers and reviewers get it, no host serves it.

    The serving hosts are told at once: units that run it are stopped, and say why in their logs.

    \b
    holdfast model quarantine org/name --note "wrong licence" --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    _decide(ctx, "quarantine", **options)


@model.command("reject")
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@site_option
@click.option("--note", required=True, help="Why; whoever is refused it will read this.")
@token_option
@json_option
@click.pass_context
def reject(ctx: click.Context, /, **options: Any) -> None:  # noqa: ANN401 - handed on as they are
    """Quarantine a revision for good: no approval leads out until it is quarantined again.

    \b
    holdfast model reject org/name@0123456789ab --note "not ours to serve" --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    _decide(ctx, "reject", **options)


def _decide(
    ctx: click.Context,
    verb: str,
    *,
    revision: str,
    site_path: Path,
    note: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    site = load_site(site_path)
    words = ["model", verb, revision, "--note", note, *(["--json"] if as_json else [])]
    code = forward(site, words, token=secret(token_file))
    if code == 0:
        tell_hosts(site, revision.partition("@")[0])
    ctx.exit(code)
