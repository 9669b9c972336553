"""Human text on stderr, data on stdout: the one place that knows both."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable

console = Console(stderr=True, highlight=False)

Data = TypeVar("Data")

site_option = click.option(
    "--site",
    "site_path",
    type=click.Path(path_type=Path),
    default=Path("site.yml"),
    show_default=True,
    help="The site file.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def emit(data: Data, *, as_json: bool, render: Callable[[Data], None]) -> None:
    """Print `data` as JSON on stdout, or hand it to `render`, which writes for people."""
    if not as_json:
        render(data)
        return
    plain = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    json.dump(plain, sys.stdout, indent=2, default=_as_plain)
    sys.stdout.write("\n")


def _as_plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)


def progress(*, unit: str = "items") -> Progress:
    """Return a progress display on stderr; `unit` is "items" or "bytes"."""
    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeElapsedColumn(),
        console=console,
        transient=not console.is_terminal,
    )
