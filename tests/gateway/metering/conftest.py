from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_gateway.metering.usage import UsageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/usage.db"
    make: Callable[[], str] = request.getfixturevalue("postgresql")
    return make()


@pytest.fixture
def store(database: str) -> Iterator[UsageStore]:
    opened = UsageStore(database)
    opened.create_schema()
    yield opened
    opened.close()
