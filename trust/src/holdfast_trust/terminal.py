"""What the commands of holdfast-trust share: settings, answers, and errors for people."""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import click

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXIT_REFUSED = 3
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the group's options say."""

    database: str | None
    ledger: Path | None
    actor: str
    longest: int = 0  # seconds a user's token may live; 0 is without bound

    @contextmanager
    def store(self, *, changes: bool = False) -> Iterator[TrustStore]:
        """Open the store; for changes with the ledger, which they cannot do without."""
        if not self.database:
            raise click.UsageError("which database? Give --database or HOLDFAST_TRUST_DATABASE.")
        if not changes:
            store = TrustStore(self.database)
            try:
                yield store
            finally:
                store.close()
            return
        if not self.ledger:
            raise click.UsageError(
                "which ledger? Changes are recorded: give --ledger or HOLDFAST_TRUST_LEDGER."
            )
        with Ledger(self.ledger) as ledger:
            store = TrustStore(self.database, ledger=ledger, actor=self.actor)
            try:
                yield store
            finally:
                store.close()


class Group(click.Group):
    """A group that tells a `TrustError` to a person and exits 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command chosen."""
        try:
            return super().invoke(ctx)
        except TrustError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)


class Lifetime(click.ParamType[int]):
    """A number with s, m, h or d, or `never`; given to the command as seconds, 0 for never."""

    name = "lifetime"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the text; numbers are what a default was read as."""
        if isinstance(value, int):
            return value
        if value == "never":
            return 0
        match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", str(value))
        if not match:
            self.fail(f"{value!r} is not like 90d, 12h, 30m, 45s or never", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


as_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


def emit(data: object, text: str, *, as_json: bool) -> None:
    """Print an answer on standard output, as JSON or as text."""
    click.echo(json.dumps(data, indent=2) if as_json else text)


def examples(*commands: str) -> str:
    """Return what a command's help ends with, one command a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def said(changed: bool, done: str, already: str) -> str:  # noqa: FBT001 - reads as a sentence
    """Return the sentence for what changed or what was so before."""
    return done if changed else already


def table(rows: list[dict[str, object]], columns: tuple[str, ...]) -> str:
    """Return rows as aligned text under a header."""
    cells = [[column.upper() for column in columns]]
    cells += [[_cell(column, row[column]) for column in columns] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _cell(column: str, value: object) -> str:
    if value is None:
        return "never" if column == "expires_at" else ""
    if column.endswith("_at"):
        return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(cast("int", value)))
    if isinstance(value, list):
        return ",".join(str(each) for each in value)
    if column == "roles" and isinstance(value, dict):
        return ",".join(f"{name}:{role}" for name, role in value.items())
    if column == "scope" and isinstance(value, dict):
        bounds = (f"{name}={','.join(values)}" for name, values in value.items())
        return " ".join(bounds) or "all"
    return str(value)


def login() -> str:
    """Return who runs this command, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"
