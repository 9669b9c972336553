"""`holdfast model gc`, `check`, `usage` and `backup`: the storage of the site's registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from holdfast_installer.console import json_option, site_option
from holdfast_installer.model.registry import forward
from holdfast_installer.site_file import load_site

if TYPE_CHECKING:
    from pathlib import Path


@click.command("gc")
@site_option
@click.option("--grace", default="24h", show_default=True, help="What is younger stays: 90s, 7d.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
@click.pass_context
def gc(ctx: click.Context, *, site_path: Path, grace: str, dry_run: bool, as_json: bool) -> None:
    """Remove from the site's registry what no revision holds any more; safe while it serves.

    \b
    holdfast model gc --site site.yml --dry-run
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["gc", "--grace", grace, *(["--dry-run"] if dry_run else []), *_json(as_json)]
    ctx.exit(forward(load_site(site_path), words))


@click.command("check")
@site_option
@click.option("--deep", is_flag=True, help="Read every file and compare it with its digest.")
@click.option("--older-than", default="0s", help="With --deep: only what was not read so long.")
@click.option("--at-most", default="", help="With --deep: stop reading after so long.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    *,
    site_path: Path,
    deep: bool,
    older_than: str,
    at_most: str,
    as_json: bool,
) -> None:
    """Find and name what is inconsistent in the registry's storage; ends with 3 if anything is.

    \b
    holdfast model check --deep --older-than 30d --at-most 2h --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["check", *(["--deep", "--older-than", older_than] if deep else []), *_json(as_json)]
    words += ["--at-most", at_most] if deep and at_most else []
    ctx.exit(forward(load_site(site_path), words))


@click.command("usage")
@site_option
@json_option
@click.pass_context
def usage(ctx: click.Context, *, site_path: Path, as_json: bool) -> None:
    """Show what each team holds in the site's registry, has reserved, and may hold.

    \b
    holdfast model usage --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    ctx.exit(forward(load_site(site_path), ["usage", *_json(as_json)]))


@click.command("backup")
@click.argument("folder", metavar="FOLDER")
@site_option
@click.option("--secrets", is_flag=True, help="Also the registry's keys.")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove all but the newest N.")
@json_option
@click.pass_context
def backup(
    ctx: click.Context,
    *,
    folder: str,
    site_path: Path,
    secrets: bool,
    keep: int | None,
    as_json: bool,
) -> None:
    """Write a backup of the registry into a folder of the control host, while it serves.

    The registry's user must be able to write there.

    \b
    holdfast model backup /srv/backup/registry --keep 7 --site site.yml
    """  # noqa: D301 - \b is click's mark for lines to leave as they are
    words = ["backup", folder, *(["--secrets"] if secrets else []), *_json(as_json)]
    words += ["--keep", str(keep)] if keep else []
    ctx.exit(forward(load_site(site_path), words))


def _json(as_json: bool) -> list[str]:  # noqa: FBT001 - click hands it over so
    return ["--json"] if as_json else []
