"""The commands of the ledger."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from holdfast_trust import ledger as ledgers
from holdfast_trust.terminal import EXIT_REFUSED, Settings, as_json, emit

ACTION = re.compile(r"[a-z]+(\.[a-z_]+)+")


@click.group(name="ledger")
def ledger_group() -> None:
    """Check the ledger, hand its checkpoints to a witness, and note what was done elsewhere."""


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


@ledger_group.command(epilog="holdfast-trust ledger note host.visit host=serving-1 why=disk")
@click.argument("action")
@click.argument("fields", nargs=-1, metavar="[NAME=VALUE]...")
@as_json
@click.pass_obj
def note(settings: Settings, action: str, fields: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001 - click
    """Record what was done by other means: an ACTION like host.visit, and what belongs to it."""
    if not ACTION.fullmatch(action):
        raise click.BadParameter("two or more words with dots between them, like host.visit")
    pairs = [field.partition("=") for field in fields]
    event = {name: value for name, _, value in pairs}
    if not all(sign for _, sign, _ in pairs) or len(event) < len(pairs):
        raise click.BadParameter("each field is NAME=VALUE, and each name is given once")
    if event.keys() & {"action", "actor", "noted"}:
        raise click.BadParameter("action, actor and noted are not yours to give")
    with ledgers.Ledger(_folder(settings, None)) as ledger:
        # `noted` tells it from what a service records of its own deeds
        entry = ledger.append({**event, "action": action, "actor": settings.actor, "noted": True})
    emit({"index": entry.index}, f"recorded as entry {entry.index}", as_json=as_json)


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
