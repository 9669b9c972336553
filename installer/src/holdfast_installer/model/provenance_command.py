"""`holdfast model verify` and `replicate`: where a model comes from, and where it may go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from holdfast_installer.console import console, emit, json_option, site_option
from holdfast_installer.errors import EXIT_REFUSED
from holdfast_installer.model.registry import forward
from holdfast_installer.model.verifying import findings
from holdfast_installer.model.verifying import verify as verify_chain
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.model.verifying import Chain

COLOURS = {"pass": "green", "fail": "bold red", "error": "red"}


@click.command()
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@site_option
@click.option("--dataset", is_flag=True, help="A data set, not a model.")
@json_option
def verify(*, revision: str, site_path: Path, dataset: bool, as_json: bool) -> None:
    """Prove where a revision comes from and what it is, and say where it is served.

    Who brought it in, signature and signer, scan, approvals, lineage, labels; every file is read
    and measured against the manifest that was signed when it was published. Nothing outside the
    site is asked. Ends with 3 where a link does not hold.

    \b
    holdfast model verify org/name --site site.yml
    holdfast model verify org/name@0123456789ab --json --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    site = load_site(site_path)
    with console.status(f"Measuring {revision}"):
        chain = verify_chain(site, revision, dataset=dataset)
    emit(chain, as_json=as_json, render=_render)
    if findings(chain):
        sys.exit(EXIT_REFUSED)


@click.command()
@site_option
@click.option("--from", "origin", metavar="URL|DIR", help="Another registry, or a carried folder.")
@click.option("--to", "target", metavar="DIR", help="Write a folder to carry, on the control host.")
@click.option("--token-file", metavar="FILE", help="On the control host: the other registry's.")
@click.option("--source-key", metavar="PEM", help="On the control host: the other's public key.")
@click.option("--ca", metavar="PEM", help="On the control host: authority of the other's https.")
@click.option("--repo", "repos", multiple=True, metavar="ORG/NAME", help="Only these.")
@click.option("--team", "teams", multiple=True, metavar="TEAM", help="Opened to; as it was.")
@click.option("--jurisdiction", metavar="NAME", help="Where it goes; with --from, the site's.")
@click.option("--at-most", metavar="CLASSIFICATION", help="The highest that may go; internal.")
@json_option
@click.pass_context
def replicate(
    ctx: click.Context,
    /,
    *,
    site_path: Path,
    repos: tuple[str, ...],
    teams: tuple[str, ...],
    as_json: bool,
    **given: str | None,
) -> None:
    """Copy models to or from another site's registry, as far as labels permit.

    Runs on the control host, where files and folders are looked for. Interrupted, run it again: it
    goes on where it stopped. Approvals do not travel. Ends with 3 where something was refused.

    \b
    holdfast model replicate --from https://hub.other.example --token-file T --source-key K.pem
    holdfast model replicate --to /media/stick/models --jurisdiction fr --at-most public
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["replicate"]
    named = {"origin": "--from", "target": "--to"}
    for name, value in given.items():
        if value:
            words += [named.get(name, f"--{name.replace('_', '-')}"), value]
    for option, values in (("--repo", repos), ("--team", teams)):
        for value in values:
            words += [option, value]
    words += ["--json"] if as_json else []
    ctx.exit(forward(load_site(site_path), words))


def _render(chain: Chain) -> None:
    console.print(f"[bold]{chain['model']}[/]@{chain['commit']}", soft_wrap=True)
    for link in chain["links"]:
        colour = COLOURS.get(
            link["verdict"], "default" if link not in findings(chain) else "yellow"
        )
        verdict = f"[{colour}]{link['verdict']:<15}[/]"
        detail = escape(link["detail"])
        console.print(f"  {link['name']:<10}{verdict} {detail}", soft_wrap=True)
        if link["fix"] and link in findings(chain):
            console.print(f"{'':28}next: {escape(link['fix'])}", soft_wrap=True)
    held = len(chain["links"]) - len(findings(chain))
    console.print(
        f"{held} of {len(chain['links'])} links hold; nothing outside the site was asked."
    )
