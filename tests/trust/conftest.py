"""Stores on both databases: a SQLite file, and a private PostgreSQL on a Unix socket."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_trust.ledger import Ledger
from holdfast_trust.store import TrustStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = count()


def _postgresql_binaries() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Start PostgreSQL with peer authentication, as on a site; yield a maker of databases."""
    binaries = _postgresql_binaries()
    if binaries is None:
        reason = "PostgreSQL is not installed: apt-get install postgresql-15"
        if os.environ.get("HOLDFAST_REQUIRE_LAB") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-postgresql-"))
    root = os.geteuid() == 0
    owner = "postgres" if root else getpass.getuser()
    become = ["runuser", "-u", owner, "--"] if root else []
    if root:
        shutil.chown(folder, owner)
        folder.chmod(0o755)

    def as_owner(*command: str) -> None:
        done = subprocess.run(
            [*become, *command], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    settings = f"-k {folder} -c listen_addresses= -c fsync=off"
    as_owner(str(binaries / "initdb"), "-D", data, "-U", owner, "--auth=peer", "-E", "UTF8", "-N")
    as_owner(
        str(binaries / "pg_ctl"), "-D", data, "-w", "-l", f"{data}/log", "-o", settings, "start"
    )
    try:
        if root:
            as_owner(str(binaries / "createuser"), "-h", str(folder), "-s", "root")

        def make() -> str:
            name = f"identity_{next(_numbers)}"
            command = [str(binaries / "createdb"), "-h", str(folder), name]
            subprocess.run(command, check=True, cwd="/")
            return f"postgresql+psycopg:///{name}?host={folder}"

        yield make
    finally:
        as_owner(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


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
