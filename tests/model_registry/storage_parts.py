"""An open storage on either database, and repositories made of plain content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.git_objects import blob_id, commit_content, folder_ids, object_id
from holdfast_hub_protocol.holdings import check_blobs
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.publishing import publish
from holdfast_hub_protocol.records import NewCommit, NewFile
from holdfast_model_registry.storage import Locations, open_storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from holdfast_model_registry.storage import Storage

BASE = datetime(2026, 1, 1, tzinfo=UTC)
AUTHOR = "ada <ada@users.invalid>"


def digest_of(content: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(content).hexdigest()


@dataclass
class Shelf:
    """A storage and how many commits were made in it."""

    locations: Locations
    storage: Storage = field(init=False)
    commits: int = 0

    def __post_init__(self) -> None:
        self.storage = open_storage(self.locations)

    def put(self, content: bytes) -> str:
        """Store a blob and return its digest."""
        with self.storage.blobs.receive() as incoming:
            incoming.write(content)
            return incoming.keep().sha256

    def commit(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        parent: str | None = None,
        refs: Sequence[str] = (MAIN,),
    ) -> str:
        """Publish files as a real commit, those named .bin as large ones; return its id."""
        self.commits += 1
        date = BASE + timedelta(days=self.commits)
        listed = tuple(
            NewFile(
                path,
                len(content),
                self.put(content),
                None if path.endswith(".bin") else blob_id(content),
            )
            for path, content in files.items()
        )
        content = commit_content(
            folder_ids({file.path: file.oid for file in listed})[""],
            author=AUTHOR,
            seconds=int(date.timestamp()),
            message="A commit",
            parents=[parent] if parent else [],
        )
        commit = NewCommit(
            repository=RepositoryId.parse(name),
            oid=object_id("commit", content),
            files=listed,
            title="A commit",
            author="ada",
            date=date,
            parent_oid=parent,
            git_object=content,
        )
        with self.storage.metadata.engine.begin() as connection:
            check_blobs(connection, self.storage.blobs, listed)
            publish(connection, commit, {}, refs=refs)
        return commit.oid

    def unref(self, ref: str) -> None:
        """Remove a ref from all repositories."""
        with self.storage.metadata.engine.begin() as connection:
            connection.execute(schema.refs.delete().where(schema.refs.c.name == ref))

    def key(self, name: str) -> int:
        """Return a repository's row."""
        found = self.storage.metadata.repository(RepositoryId.parse(name))
        assert found is not None
        return found.key

    def count(self, table: sa.Table) -> int:
        """Return how many rows a table has."""
        with self.storage.metadata.engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    def has(self, content: bytes) -> bool:
        """Tell whether a blob is there."""
        return self.storage.blobs.has(digest_of(content), len(content))

    def path(self, content: bytes) -> Path:
        """Return where a blob lies."""
        return self.storage.blobs.path(digest_of(content))
