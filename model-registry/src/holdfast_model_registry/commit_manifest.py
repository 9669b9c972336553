"""The signed manifest of each commit: every file with its digest, signed when it is published.

It is what a serving host holds its files against, what another registry takes a commit by, and
what tells later that a row of the database was altered. The registry signs what it admitted, once,
in the transaction that publishes it; nothing here signs anew what a database says today.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.records import NewFile
from holdfast_model_registry.signing_envelope import (
    STATEMENT_TYPE,
    EnvelopeError,
    parse_envelope,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_model_registry.signing_envelope import TrustedKey
    from holdfast_model_registry.signing_key import RegistryKey

PREDICATE: Final = "https://holdfast.invalid/commit-manifest/v1"
BATCH: Final = 200  # commits signed in one transaction

commit_manifests: Final = sa.Table(
    "commit_manifests",
    schema.metadata,
    sa.Column(
        "commit_id", sa.ForeignKey(schema.commits.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("envelope", sa.Text, nullable=False),  # DSSE, JSON
)

Hex40 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestFile(_Part):
    """One file; without `git_oid` git holds its LFS pointer."""

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    git_oid: Hex40 | None


class CommitManifest(_Part):
    """What the registry says of one commit. `object` is git's own text of it, where it has one."""

    format: Literal[1] = 1
    kind: Literal["model", "dataset"]
    repository: str
    commit: Hex40
    tree: Hex40
    parent: Hex40 | None
    title: str
    message: str
    author: str
    date: datetime
    object: str | None  # base64
    files: tuple[ManifestFile, ...]
    signed: datetime

    @property
    def name(self) -> RepositoryId:
        """The repository; BadIdentifierError if it cannot be one."""
        return RepositoryId.parse(self.repository, self.kind)

    @property
    def new_files(self) -> tuple[NewFile, ...]:
        """The files as they are published."""
        return tuple(NewFile(f.path, f.size, f.sha256, f.git_oid) for f in self.files)

    @property
    def git_object(self) -> bytes | None:
        """What git hashes to the commit's id."""
        return None if self.object is None else base64.b64decode(self.object)


@dataclass(frozen=True)
class SignedManifest:
    """A manifest whose signature was verified, with the key that made it."""

    manifest: CommitManifest
    key: TrustedKey


def record(connection: sa.Connection, repository_key: int, oid: str, key: RegistryKey) -> bool:
    """Sign and keep the manifest of a commit as it was just published; once for each commit.

    Returns whether there was something to sign. KeyError if there is no such commit.
    """
    known = connection.execute(
        sa.select(schema.commits.c.id, commit_manifests.c.commit_id.label("signed"))
        .outerjoin(commit_manifests, commit_manifests.c.commit_id == schema.commits.c.id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid)
    ).one_or_none()
    if known is None:
        raise KeyError(oid)
    if known.signed is not None:
        return False
    statement = statement_of(read_rows(connection, known.id))
    connection.execute(
        commit_manifests.insert().values(
            commit_id=known.id, envelope=json.dumps(sign(statement, key.private))
        )
    )
    return True


def record_missing(engine: sa.Engine, key: RegistryKey) -> int:
    """Sign every commit that has no manifest: those from before there were any."""
    return sum(sign_missing(engine, key))


def sign_missing(engine: sa.Engine, key: RegistryKey) -> Iterator[int]:
    """Do so a batch at a time, oldest first; yield how many each had.

    Commits that come meanwhile are not among them: those are signed as they are published.
    """
    with engine.connect() as connection:
        missing = connection.execute(
            sa.select(schema.commits.c.repository_id, schema.commits.c.oid)
            .outerjoin(commit_manifests, commit_manifests.c.commit_id == schema.commits.c.id)
            .join(schema.repositories, schema.repositories.c.id == schema.commits.c.repository_id)
            .where(
                commit_manifests.c.commit_id.is_(None),
                schema.repositories.c.kind.in_(("model", "dataset")),
            )
            .order_by(schema.commits.c.id)
        ).all()
    for first in range(0, len(missing), BATCH):  # one wait for the disk for many
        count = 0
        with engine.begin() as connection:
            for row in missing[first : first + BATCH]:
                with suppress(KeyError):  # deleted meanwhile
                    count += record(connection, row.repository_id, row.oid, key)
        yield count


def read_envelope_text(connection: sa.Connection, repository_key: int, oid: str) -> str | None:
    """Return the kept envelope of a commit, as its JSON text."""
    return connection.execute(
        sa.select(commit_manifests.c.envelope)
        .join(schema.commits, schema.commits.c.id == commit_manifests.c.commit_id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid)
    ).scalar_one_or_none()


def verify(text: str | bytes, trusted: Sequence[TrustedKey]) -> SignedManifest:
    """Return the manifest of an envelope by a trusted key; EnvelopeError says why there is none."""
    envelope = parse_envelope(text.encode() if isinstance(text, str) else text)
    key = envelope.signer(trusted)
    if key is None:
        known = ", ".join(each.name for each in trusted) or "none"
        raise EnvelopeError(f"not signed by a known registry; known: {known}")
    statement = envelope.statement(PREDICATE)
    try:
        return SignedManifest(CommitManifest.model_validate(statement.get("predicate")), key)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EnvelopeError(f"commit manifest: {where}: {first['msg']}") from error


def statement_of(manifest: CommitManifest) -> dict[str, Any]:
    """Return the manifest as the in-toto statement that is signed."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": manifest.repository, "digest": {"gitCommit": manifest.commit}},
        ],
        "predicateType": PREDICATE,
        "predicate": manifest.model_dump(mode="json"),
    }


def read_rows(connection: sa.Connection, commit_key: int) -> CommitManifest:
    """Return the manifest that the database's rows amount to now."""
    commits, repositories, entries = schema.commits, schema.repositories, schema.entries
    row = connection.execute(
        sa.select(
            repositories.c.kind,
            repositories.c.namespace,
            repositories.c.name,
            commits.c.oid,
            commits.c.snapshot_id,
            schema.snapshots.c.tree_oid,
            commits.c.parent_oid,
            commits.c.title,
            commits.c.message,
            commits.c.author,
            commits.c.date,
            commits.c.object,
        )
        .join(repositories, repositories.c.id == commits.c.repository_id)
        .join(schema.snapshots, schema.snapshots.c.id == commits.c.snapshot_id)
        .where(commits.c.id == commit_key)
    ).one()
    files = connection.execute(
        sa.select(entries.c.path, entries.c.size, entries.c.sha256, entries.c.oid, entries.c.is_lfs)
        .where(entries.c.snapshot_id == row.snapshot_id, entries.c.sha256.is_not(None))
        .order_by(entries.c.path)
    ).all()
    date = row.date.replace(tzinfo=UTC) if row.date.tzinfo is None else row.date.astimezone(UTC)
    # Validated in one go: one by one, 100,000 files would take longer than signing them all.
    return CommitManifest.model_validate(
        {
            "kind": row.kind,
            "repository": f"{row.namespace}/{row.name}",
            "commit": row.oid,
            "tree": row.tree_oid,
            "parent": row.parent_oid,
            "title": row.title,
            "message": row.message,
            "author": row.author,
            "date": date,
            "object": None if row.object is None else base64.b64encode(row.object).decode(),
            "files": [
                {"path": path, "size": size, "sha256": sha256, "git_oid": None if lfs else oid}
                for path, size, sha256, oid, lfs in files
            ],
            "signed": datetime.now(UTC).replace(microsecond=0),
        }
    )
