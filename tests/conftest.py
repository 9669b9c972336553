"""What every test may rely on: a lab where this machine can boot one, and a loud word where not."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.lab.machine import missing_for_lab
from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUIRED = os.environ.get("HOLDFAST_REQUIRE_LAB") == "1"


def pytest_configure() -> None:
    """Hear Ctrl-C, and let children hear it: a shell's background jobs inherit a deaf ear."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs root and hosts where they are not to be had, unless it is required."""
    lab = [item for item in items if item.get_closest_marker("lab")]
    missing = missing_for_lab() if lab else []
    if not missing:
        return
    if REQUIRED:
        pytest.exit(f"HOLDFAST_REQUIRE_LAB=1, but this machine lacks: {'; '.join(missing)}", 1)
    for item in lab:
        item.add_marker(pytest.mark.skip(reason=f"no lab here: {'; '.join(missing)}"))
    config.stash[NOT_RUN] = len(lab)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Start PostgreSQL with peer authentication, as on a site; yield a maker of databases."""
    with postgresql_server() as make:
        yield make


NOT_RUN = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in red what was not run: a green line must not be read as proof of it."""
    count = terminalreporter.config.stash.get(NOT_RUN, 0)
    if count:
        terminalreporter.write_line(
            f"NOT RUN: {count} tests that need root and real hosts (`sudo make test` runs them).",
            red=True,
            bold=True,
        )
