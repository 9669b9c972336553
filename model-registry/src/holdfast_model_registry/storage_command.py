"""The commands that look after storage: gc, check, backup, restore, usage."""

from __future__ import annotations

import functools
import json
import os
import pwd
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_hub_protocol.quotas import readable
from holdfast_hub_protocol.staging import namespace_usages
from holdfast_model_registry.backup import back_up, prune, restore
from holdfast_model_registry.check import Scrub, check
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.gc import collect, keep_blobs
from holdfast_model_registry.settings import read_settings
from holdfast_model_registry.storage import open_storage
from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_model_registry.backup import Moved
    from holdfast_model_registry.settings import Settings

_PATH: Final = click.Path(path_type=Path)
_ACTOR: Final = "HOLDFAST_TRUST_ACTOR"  # who the installer says sits at the other end of SSH
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """A number and a unit: 90s, 30m, 24h, 7d; seconds in Python."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 30m, 24h or 7d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


def of_a_registry(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say which registry, and errors as people read them."""

    @click.option("--data", type=_PATH, metavar="DIR", help="The registry's folder.")
    @click.option("--database", metavar="URL", help="As for serve.")
    @click.option("--config", type=_PATH, metavar="FILE", help="As for serve; --data from there.")
    @functools.wraps(command)
    def wrapped(data: Path | None, database: str | None, config: Path | None, **more: Any) -> None:  # noqa: ANN401 - the command's own options
        given = {"data": data, "database": database}
        try:
            command(read_settings(config, given), **more)
        except (TrustError, SQLAlchemyError, OSError) as error:
            fail(error)

    return wrapped


def fail(error: Exception) -> None:
    """Say what went wrong and end with 1."""
    if isinstance(error, SQLAlchemyError):
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        error = RegistryError(
            "the database cannot be used", cause=cause, next_command="check --database"
        )
    elif isinstance(error, OSError):
        error = RegistryError(
            "a file cannot be read or written",
            where=str(error.filename or ""),
            cause=error.strerror or str(error),
        )
    click.echo(f"Error: {error}", err=True)
    sys.exit(1)


@click.command("gc")
@of_a_registry
@click.option("--grace", type=Duration(), default="24h", show_default=True, help="How long ago.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def gc_command(settings: Settings, *, grace: float, dry_run: bool, as_json: bool) -> None:
    """Remove commits and blobs that were out of reach for a while; prints JSON.

    Safe beside a registry that serves, and wherever it is interrupted. Commits of deleted or
    squashed branches go once they were out of reach in two runs, --grace apart.
    """
    locations = settings.locations
    storage = open_storage(locations)
    with keep_blobs(locations, collecting=True), Ledger(locations.ledger_folder) as ledger:
        collected = collect(storage, grace=grace, dry_run=dry_run)
        if not dry_run:
            ledger.append({"action": "storage.gc", "actor": operator(), **collected.as_json()})
    storage.close()
    if not as_json:
        verb = "would remove" if dry_run else "removed"
        click.echo(
            f"{verb} {collected.blobs} blobs ({readable(collected.bytes)}), "
            f"{collected.commits} commits; {collected.waiting_blobs} blobs and "
            f"{collected.waiting_commits} commits are younger than --grace",
            err=True,
        )
    click.echo(json.dumps(collected.as_json(), indent=2))


@click.command("check")
@of_a_registry
@click.option("--deep", is_flag=True, help="Read every blob and compare it with its digest.")
@click.option("--older-than", type=Duration(), default="0s", help="With --deep: not read so long.")
@click.option("--at-most", type=Duration(), help="With --deep: stop reading after so long.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def check_command(
    settings: Settings, *, deep: bool, older_than: float, at_most: float | None, as_json: bool
) -> None:
    """Find whatever is inconsistent in storage; prints JSON, and ends with 3 if anything is.

    A blob with wrong content is set aside: readers are refused, the next upload mends it. With
    --older-than and --at-most it goes on where the last run stopped.
    """
    locations = settings.locations
    storage = open_storage(locations)
    scrub = Scrub(older_than, at_most) if deep else None
    with keep_blobs(locations), Ledger(locations.ledger_folder) as ledger:
        report = check(storage, scrub=scrub, progress=_silent if as_json else _progress)
        for finding in report.findings:
            ledger.append({"action": "storage.finding", "actor": operator(), **finding.as_json()})
    storage.close()
    if not as_json:
        for finding in report.findings:
            click.echo(f"{finding.name}: {finding.detail}\n  next: {finding.fix}", err=True)
        click.echo(f"{len(report.findings)} findings", err=True)
    click.echo(json.dumps(report.as_json(), indent=2))
    sys.exit(3 if report.findings else 0)


@click.command("backup")
@click.argument("folder", type=_PATH)
@of_a_registry
@click.option("--link", is_flag=True, help="Hard links, where possible, instead of copies.")
@click.option("--secrets", is_flag=True, help="Also the keys, and trust.db of the data folder.")
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove all but the newest N.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def backup_command(  # noqa: PLR0913 - as many parameters as options
    settings: Settings, *, folder: Path, link: bool, secrets: bool, keep: int | None, as_json: bool
) -> None:
    """Write a backup of records and blobs into FOLDER while the registry serves; prints JSON.

    Blobs that an earlier backup in FOLDER brought are not copied again. Ends with 3 if a blob is
    missing or damaged: the backup has everything else.
    """
    progress = _silent if as_json else _progress
    moved = back_up(settings.locations, folder, link=link, secret=secrets, progress=progress)
    removed = prune(folder, keep) if keep else []
    _told(settings, "storage.backup", moved, as_json=as_json, removed=removed)


@click.command("restore")
@click.argument("folder", type=_PATH)
@of_a_registry
@click.option("--at", metavar="NAME", default="", help="Which backup; the newest.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def restore_command(settings: Settings, *, folder: Path, at: str, as_json: bool) -> None:
    """Bring a backup back into a registry that has nothing yet; prints JSON.

    Every blob is compared with its digest on the way. Ends with 3 if some are missing or damaged
    in the backup: everything else is back. Interrupted, run it again.
    """
    progress = _silent if as_json else _progress
    moved = restore(settings.locations, folder, at, progress=progress)
    _told(settings, "storage.restore", moved, as_json=as_json)


@click.command("usage")
@of_a_registry
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def usage_command(settings: Settings, *, as_json: bool) -> None:
    """Show what each namespace holds, has reserved, and may hold; a blob counts once in each."""
    storage = open_storage(settings.locations)
    usages = namespace_usages(storage.metadata.engine, settings.quotas.quotas)
    storage.close()
    if as_json:
        click.echo(json.dumps([asdict(usage) for usage in usages], indent=2))
        return
    for usage in usages:
        limit = "no limit" if usage.limit is None else readable(usage.limit)
        reserved = f"{readable(usage.reserved)} reserved"
        click.echo(f"{usage.namespace}: {readable(usage.held)} held, {reserved}, {limit}")


def _told(
    settings: Settings, action: str, moved: Moved, *, as_json: bool, **more: list[str]
) -> None:
    """Put what was moved on the ledger and on the terminal, and end."""
    document = moved.as_json() | more
    with Ledger(settings.locations.ledger_folder) as ledger:
        count = {"findings": len(moved.findings)}
        ledger.append({"action": action, "actor": operator(), **document, **count})
    if not as_json:
        for finding in moved.findings:
            click.echo(f"{finding.name}: {finding.detail}\n  next: {finding.fix}", err=True)
        click.echo(
            f"{moved.name}: {moved.rows} rows, {moved.blobs} blobs ({readable(moved.bytes)}), "
            f"{moved.copied} of them copied ({readable(moved.copied_bytes)})",
            err=True,
        )
    click.echo(json.dumps(document, indent=2))
    sys.exit(3 if moved.findings else 0)


def operator() -> str:
    """Return who runs the command, as the ledger names them."""
    return os.environ.get(_ACTOR) or pwd.getpwuid(os.getuid()).pw_name


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", err=True, nl=False)


def _silent(_: str) -> None:
    pass
