"""A private PostgreSQL on a Unix socket, with peer authentication as on a site."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from required import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _binaries() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).parent if found else None


@dataclass
class Server:
    """One that a test may stop and start again; calling it makes a new database."""

    make: Callable[[], str]
    start: Callable[[], None]
    stop: Callable[[], None]

    def __call__(self) -> str:
        return self.make()


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Start it and yield a maker of new databases' URLs; skip the test where there is none."""
    binaries = _binaries()
    if binaries is None:
        lacking("PostgreSQL is not installed: apt-get install postgresql-15")
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

    data, settings = str(folder / "data"), f"-k {folder} -c listen_addresses= -c fsync=off"
    # One server for a whole session: engines of tests that ended may still hold connections.
    settings += " -c max_connections=400"
    initdb, pg_ctl = str(binaries / "initdb"), str(binaries / "pg_ctl")
    as_owner(initdb, "-D", data, "-U", owner, "--auth=peer", "-E", "UTF8")

    def start() -> None:
        as_owner(pg_ctl, "-D", data, "-w", "-l", f"{data}/log", "-o", settings, "start")

    def stop() -> None:
        as_owner(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")

    start()
    numbers = count()
    try:
        if root:
            as_owner(str(binaries / "createuser"), "-h", str(folder), "-s", "root")

        def make() -> str:
            name = f"test_{next(numbers)}"
            subprocess.run(
                [str(binaries / "createdb"), "-h", str(folder), name], check=True, cwd="/"
            )
            return f"postgresql+psycopg:///{name}?host={folder}"

        yield Server(make, start, stop)
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            stop()
        shutil.rmtree(folder)
