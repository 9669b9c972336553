"""The registry's folder: blobs, the default databases and the ledger, and who may write."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_hub_protocol.blobs import BlobStore
from holdfast_hub_protocol.holdings import fill
from holdfast_hub_protocol.metadata import MetadataStore
from holdfast_hub_protocol.schema import open_engine
from holdfast_hub_protocol.xet.staged import XorbStore
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.readers import adopt_old_table
from holdfast_model_registry.signing_key import open_registry_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

    from holdfast_model_registry.signing_key import RegistryKey


@dataclass(frozen=True)
class Locations:
    """Where everything is; what is not said lies in the data folder."""

    data: Path
    database: str = ""
    trust_database: str = ""
    ledger: Path | None = None

    @property
    def database_url(self) -> str:
        """The database of repositories and commits."""
        return self.database or f"sqlite:///{self.data.resolve()}/registry.db"

    @property
    def trust_url(self) -> str:
        """The database of users and tokens."""
        return self.trust_database or f"sqlite:///{self.data.resolve()}/trust.db"

    @property
    def ledger_folder(self) -> Path:
        """The ledger of reads and imports."""
        return self.ledger or self.data / "ledger"

    @property
    def signing_key(self) -> Path:
        """What signs the addresses to upload to; processes that serve together share it."""
        return self.data / "signing.key"


@dataclass(frozen=True)
class Storage:
    """The open stores, and the key that signs what is published."""

    blobs: BlobStore
    metadata: MetadataStore
    key: RegistryKey

    @property
    def xorbs(self) -> XorbStore:
        """What newer clients uploaded and is not yet a file."""
        return XorbStore(self.blobs.root / "xet")

    def close(self) -> None:
        """Give the database connections back; needed before a fork."""
        self.metadata.engine.dispose()


def open_storage(locations: Locations) -> Storage:
    """Open the stores; make the folders and tables that are missing."""
    blobs = BlobStore(locations.data / "blobs")
    try:
        locations.data.mkdir(parents=True, exist_ok=True, mode=0o750)
        blobs.create()
    except OSError as error:
        raise RegistryError(
            "the data folder cannot be made or written",
            where=str(locations.data),
            cause=error.strerror or str(error),
            next_command="give --data a folder that this user may write",
        ) from error
    metadata = MetadataStore(open_engine(locations.database_url))
    metadata.create_schema()
    adopt_old_table(metadata.engine)
    fill(metadata.engine)
    return Storage(blobs, metadata, open_registry_key(locations.data))


@contextmanager
def one_view(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection on which all questions see the database as it was at the first."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        else:
            connection.exec_driver_sql("BEGIN")  # the driver's own comes with the first write
        yield connection


@contextmanager
def one_writer(locations: Locations) -> Iterator[None]:
    """Let one import at a time write to a data folder; others wait for it."""
    descriptor = os.open(locations.data / "import.lock", os.O_CREAT | os.O_RDWR, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
