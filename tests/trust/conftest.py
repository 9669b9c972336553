"""Stores on both databases: a SQLite file, and a private PostgreSQL on a Unix socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/identity.db"
    make: Callable[[], str] = request.getfixturevalue("postgresql")
    return make()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger") as opened:
        yield opened


@pytest.fixture
def store(database_url: str, ledger: Ledger) -> Iterator[TrustStore]:
    """A store with a schema, a ledger, and the team research."""
    opened = TrustStore(database_url, ledger=ledger, actor="tester")
    opened.create_schema()
    opened.add_team("research")
    yield opened
    opened.close()
