"""How every benchmark is run: measurements by name; what could not be taken is a figure too."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from figures import Figure, as_json, as_table
from rich.console import Console
from workshop import NotMeasuredError, load, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def take(
    measurements: Mapping[str, Callable[[], list[Figure]]], only: Sequence[str]
) -> tuple[list[Figure], bool]:
    """Take the measurements that are asked for, all if none is named; figures, and if whole."""
    signal.signal(signal.SIGTERM, _stop)
    figures: list[Figure] = []
    whole = True
    for name, measure in measurements.items():
        if only and name not in only:
            continue
        say(f"{time.strftime('%H:%M:%S')} {name}: {load()}")
        try:
            figures += measure()
        except NotMeasuredError as problem:
            say(f"  not measured: {problem}", markup=False)
            figures.append(Figure(name, None, "", str(problem)))
            whole = False
    return figures, whole


def tell(figures: Sequence[Figure], *, as_data: bool) -> None:
    """Print the table, and the JSON object as the last line where it is asked for."""
    Console(width=None if sys.stdout.isatty() else 150).print(
        as_table(f"At the end {load()}", figures)
    )
    if as_data:
        print(as_json(figures))


def _stop(signum: int, _: object) -> NoReturn:
    """Turn a termination into an exception, so that what was started is taken down."""
    sys.exit(128 + signum)
