"""`holdfast up | down --local`, and what `status --local` shows: a site on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from holdfast_installer.console import console, emit, json_option
from holdfast_installer.errors import EXIT_FAILED, HoldfastError
from holdfast_installer.local import site_on_loopback
from holdfast_installer.local.layout import Layout
from holdfast_installer.paths import state_dir
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from holdfast_installer.local.site_on_loopback import Status, Up

_local_option = click.option(
    "--local", is_flag=True, required=True, help="On this machine, on loopback, without root."
)
_state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for environments, data and logs; local/ in holdfast's state by default.",
)


@click.command()
@_local_option
@click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.yml"),
    show_default=True,
    help="The site file: its models and teams are used, its hosts are not.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    show_default=True,
    help="The bundle's folder; it is verified first.",
)
@_state_option
@json_option
def up(*, local: bool, site_path: Path, bundle: Path, state: Path | None, as_json: bool) -> None:
    """Run a site's services as ordinary processes on loopback, from the bundle alone.

    One replica a model, SQLite, no TLS. Run it again and it reuses what runs; `holdfast down
    --local` stops it. To install hosts instead: `holdfast apply`.
    """
    del local
    site = load_site(site_path)
    made = site_on_loopback.up(site, bundle, _layout(state), _say)
    emit(made, as_json=as_json, render=_render_up)


@click.command()
@_local_option
@_state_option
@json_option
def down(*, local: bool, state: Path | None, as_json: bool) -> None:
    """Stop what `holdfast up --local` started; its data stays for the next start."""
    del local
    layout = _layout(state)
    stopped = site_on_loopback.down(layout)
    said = "stopped" if stopped else "nothing was running"
    emit(
        {"state": str(layout.root), "stopped": stopped},
        as_json=as_json,
        render=lambda _: _say(f"{said}; data is kept in {layout.root}"),
    )


def show_status(state: Path | None, *, as_json: bool) -> None:
    """Show the local services; HoldfastError unless every one of them runs and answers."""
    seen = site_on_loopback.status(_layout(state))
    emit(seen, as_json=as_json, render=_render_status)
    if not seen.healthy:
        raise HoldfastError(
            "Not everything runs" if seen.running else "Nothing runs here",
            where=seen.state,
            next_command="holdfast up --local --site site.yml --bundle bundle",
            exit_code=EXIT_FAILED,
        )


def _layout(state: Path | None) -> Layout:
    return Layout((state or state_dir() / "local").absolute())


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _render_up(made: Up) -> None:
    _render_status(made.status)
    console.print(f"\nUser {made.user}, token [bold]{made.token}[/bold]")
    _say(f"Console, signed in to with that token: {made.console}")
    _say(f"{made.model} was asked what Holdfast is and answered:\n  {made.answer}")
    _say("\nThree commands to paste:")
    for command in (made.hf_download, made.curl_chat, made.openai_client):
        _say(f"\n{command}")
    _say(f"\nReady in {made.seconds:.0f} s. To stop it:")
    _say(f"  holdfast down --local --state {made.status.state}")


def _render_status(seen: Status) -> None:
    table = Table("service", "pid", "answers", "restarts", "log")
    for one in seen.services:
        answers = "yes" if one.healthy else "no"
        table.add_row(one.name, str(one.pid or "-"), answers, str(one.restarts), one.log)
    console.print(table)
    if seen.running:
        _say("What cannot be shown here, and is not claimed:")
        for finding in seen.not_shown:
            _say(f"  {finding.verdict:>14}  {finding.name}: {finding.detail}")
