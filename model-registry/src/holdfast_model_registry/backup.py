"""Backups of a registry's records and blobs, taken while it serves, and brought back checked.

A backup folder has one pool of blobs, shared by all backups in it, and for each backup one file
`records/<UTC time>.jsonl.gz`: a header, the rows of every table as they were at one moment, and
their number and digest at the end. It appears under its name once all its blobs are there, so a
file with a name is a whole backup. It is the same for SQLite and PostgreSQL.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.blobs import BlobStore, DigestMismatchError, sync_folder
from holdfast_hub_protocol.upgrades import VERSION
from holdfast_model_registry import backup_records
from holdfast_model_registry.check import Finding
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.gc import keep_blobs
from holdfast_model_registry.storage import one_view, open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from holdfast_model_registry.storage import Locations, Storage

_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SUFFIX: Final = ".jsonl.gz"
_IDENTITY: Final = "trust.db"


@dataclass
class Moved:
    """What a backup or a restore came to."""

    name: str  # the backup's, a UTC time
    rows: int = 0
    blobs: int = 0
    bytes: int = 0
    copied: int = 0  # of the blobs: the others were there
    copied_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as the commands print it."""
        found = [finding.as_json() for finding in self.findings]
        return {**vars(self), "findings": found}


def back_up(
    locations: Locations,
    folder: Path,
    *,
    link: bool = False,
    secret: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Moved:
    """Write a backup of what is there now; blobs that the folder has already are not copied again.

    `link` makes hard links where it can, which a damaged disk damages too. `secret` adds the
    registry's keys, and the identity database if it lies in the data folder.
    """
    pool = _pool(folder)
    storage = open_storage(locations)
    moved = Moved(datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"))
    unfinished = folder / "records" / f".{secrets.token_hex(8)}"
    final = _records(folder, moved.name)
    try:
        with keep_blobs(locations):
            with one_view(storage.metadata.engine) as connection:
                moved.rows = backup_records.write(connection, unfinished)
                needed = backup_records.needed_blobs(connection)
            _copy(storage.blobs, pool, needed, moved, link=link, progress=progress)
        if secret:
            _save_secrets(locations, folder / "secrets" / moved.name)
        os.link(unfinished, final)
        sync_folder(final.parent)
    except FileExistsError as error:
        raise RegistryError("there is a backup of this second", where=str(final)) from error
    finally:
        unfinished.unlink(missing_ok=True)
        storage.close()
    return moved


def restore(
    locations: Locations,
    folder: Path,
    name: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Moved:
    """Bring a backup, the newest unless named, into a registry that has nothing yet.

    Every blob is read and compared with its digest on the way. What is missing or damaged in the
    backup is a finding, and the rest is brought back. Interrupted, it can be run again.
    """
    names = backups(folder)
    name = name or (names[-1] if names else "")
    if name not in names:
        raise RegistryError(
            f"there is no backup {name}".rstrip(),
            where=str(folder),
            cause=f"there are {', '.join(names)}" if names else "the folder has none",
            next_command=f"ls {folder}/records",
        )
    moved = Moved(name)
    path = _records(folder, name)
    summary = backup_records.verify(path)
    if summary.schema != VERSION:
        raise RegistryError(
            f"the backup is of a registry with schema {summary.schema}",
            where=str(path),
            cause=f"this release knows {VERSION}",
            next_command="restore with the release that wrote it, then upgrade",
        )
    _restore_secrets(locations, folder / "secrets" / name)
    storage = open_storage(locations)
    try:
        _require_empty(storage, locations)
        _copy(_pool(folder), storage.blobs, summary.needed, moved, link=False, progress=progress)
        with storage.metadata.engine.begin() as connection:
            moved.rows = backup_records.read(connection, path)
    finally:
        storage.close()
    return moved


def backups(folder: Path) -> list[str]:
    """Return the names of the whole backups in a folder, oldest first."""
    records = folder / "records"
    if not records.is_dir():
        return []
    names = (path.name.removesuffix(_SUFFIX) for path in records.iterdir())
    return sorted(name for name in names if _NAME.fullmatch(name))


def prune(folder: Path, keep: int) -> list[str]:
    """Remove all but the newest backups, and the blobs that only they needed; return the names."""
    names = backups(folder)
    removed = names[:-keep]
    if not removed:
        return []
    needed: set[str] = set()
    for name in names[-keep:]:
        needed |= backup_records.verify(_records(folder, name)).needed.keys()
    for name in removed:
        _records(folder, name).unlink()
        shutil.rmtree(folder / "secrets" / name, ignore_errors=True)
    pool = _pool(folder)
    for blob in list(pool.stored()):
        if blob.sha256 not in needed:
            pool.remove(blob.sha256)
    return removed


def _pool(folder: Path) -> BlobStore:
    pool = BlobStore(folder / "blobs")
    try:
        pool.create()
        (folder / "records").mkdir(exist_ok=True)
    except OSError as error:
        raise RegistryError(
            "the backup folder cannot be made or written",
            where=str(folder),
            cause=error.strerror or str(error),
        ) from error
    return pool


def _records(folder: Path, name: str) -> Path:
    return folder / "records" / f"{name}{_SUFFIX}"


def _copy(  # noqa: PLR0913 - from, to, what, and what to tell
    source: BlobStore,
    target: BlobStore,
    needed: Mapping[str, int],
    moved: Moved,
    *,
    link: bool,
    progress: Callable[[str], None],
) -> None:
    for sha256, size in sorted(needed.items()):
        moved.blobs += 1
        moved.bytes += size
        if target.has(sha256, size):
            continue
        problem = ""
        try:
            content = target.add(source.path(sha256), sha256, link=link)
        except FileNotFoundError:
            problem = "is not there"
        except DigestMismatchError as error:
            problem = f"is damaged: {error}"
        if problem:
            moved.findings.append(
                Finding(
                    "blob-not-copied",
                    f"blob {sha256} {problem}",
                    "holdfast-model-registry check --deep names its files",
                )
            )
            continue
        moved.copied += 1
        moved.copied_bytes += content.size
        progress(f"{moved.blobs} of {len(needed)} blobs")


def _require_empty(storage: Storage, locations: Locations) -> None:
    if backup_records.has_rows(storage.metadata.engine):
        raise RegistryError(
            "the registry to restore into has repositories already",
            where=locations.database_url,
            next_command="give --data a new folder, and --database an empty database",
        )


def _save_secrets(locations: Locations, folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o700)
    for path in (locations.signing_key, *sorted((locations.data / "keys").glob("*"))):
        if path.is_file():
            shutil.copy2(path, folder / path.name)
    identity = locations.data / _IDENTITY
    if not locations.trust_database and identity.is_file():
        target = folder / _IDENTITY
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(identity)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    for path in folder.iterdir():
        path.chmod(path.stat().st_mode & 0o700)


def _restore_secrets(locations: Locations, folder: Path) -> None:
    """Put keys and the identity database back, never over one that is there."""
    if not folder.is_dir():
        return
    locations.data.mkdir(parents=True, exist_ok=True, mode=0o750)
    (locations.data / "keys").mkdir(exist_ok=True)
    for path in sorted(folder.iterdir()):
        above = path.name in {locations.signing_key.name, _IDENTITY}
        target = (locations.data if above else locations.data / "keys") / path.name
        if path.name == _IDENTITY and locations.trust_database:
            continue
        with suppress(FileExistsError):
            descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
