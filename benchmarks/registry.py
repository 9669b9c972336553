"""Every figure of the model registry: downloads, uploads, metadata, memory, listings.

`.venv/bin/python benchmarks/registry.py [--json] [--only MEASUREMENT]...`, on loopback, without
root. How to read it is in README.md beside this file.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import click
from registry_reading import measure_download, measure_get, measure_metadata
from registry_scale import measure_listing, measure_memory
from registry_uploads import measure_uploads
from registry_workshop import Workshop
from running import take, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from figures import Figure

MEASUREMENTS: dict[str, Callable[[Workshop], list[Figure]]] = {
    "get": measure_get,
    "download": measure_download,
    "upload": measure_uploads,
    "metadata": measure_metadata,
    "memory": measure_memory,
    "listing": measure_listing,
}


@click.command()
@click.option("--json", "as_data", is_flag=True, help="Print the JSON object as the last line.")
@click.option(
    "--only", multiple=True, type=click.Choice(tuple(MEASUREMENTS)), help="May be repeated."
)
def main(*, as_data: bool, only: tuple[str, ...]) -> None:
    """Measure and print; exit 1 when something could not be measured, whatever the goals say."""
    with Workshop() as workshop:
        taken = {name: partial(measure, workshop) for name, measure in MEASUREMENTS.items()}
        figures, whole = take(taken, only)
    tell(figures, as_data=as_data)
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
