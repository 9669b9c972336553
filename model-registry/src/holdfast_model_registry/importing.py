"""Bringing revisions in: every blob checked, then everything visible at once, or nothing."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol.blobs import DigestMismatchError, read_content
from holdfast_hub_protocol.facts import read_facts
from holdfast_hub_protocol.holdings import MissingBlobError, check_blobs
from holdfast_hub_protocol.metadata import MAIN
from holdfast_hub_protocol.publishing import ConflictError, publish, touch
from holdfast_hub_protocol.records import NewCommit, NewFile
from holdfast_model_registry.admission.observing import Observer
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.lineage import inherit
from holdfast_model_registry.readers import put_access
from holdfast_model_registry.review.reviewing import RefusedError, Reviewing
from holdfast_model_registry.review.states import LOCAL, Actor
from holdfast_model_registry.review.withdrawing import place
from holdfast_model_registry.signing_provenance import ContradictionError, Provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from holdfast_model_registry.admission.policy import ModelPolicy
    from holdfast_model_registry.manifest import Revision
    from holdfast_model_registry.storage import Storage
    from holdfast_trust.ledger import Ledger

AUTHOR: Final = "holdfast"


@dataclass(frozen=True)
class Imported:
    """What one revision came to."""

    id: str
    commit: str
    files: int
    bytes: int
    teams: tuple[str, ...]
    labels: Mapping[str, str]
    changed: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as `import` prints it."""
        return {
            "id": self.id,
            "commit": self.commit,
            "ref": "main",
            "files": self.files,
            "bytes": self.bytes,
            "teams": list(self.teams),
            "labels": dict(self.labels),
            "changed": self.changed,
        }


def import_revision(  # noqa: PLR0913 - one operation with all that it needs
    storage: Storage,
    ledger: Ledger,
    revision: Revision,
    source: Callable[[str], Path],
    *,
    teams: Sequence[str] | None,
    labels: Mapping[str, str],
    link: bool = True,
    provenance: Provenance | None = None,
    importer: Actor | None = None,
    policy: ModelPolicy | None = None,
    placed: bool = False,
) -> Imported:
    """Take in a revision whose blobs `source` (by SHA-256) finds, and point main at it.

    The ledger has the import before anybody can see it. Doing it again changes nothing. Without
    `provenance` no signer is known.
    Raises RegistryError, with nothing visible, if a blob is missing or not what it should be, or
    where its signature, its labels or the policy (the level `baseline` if not given) do not hold.
    The word of the `importer` (this login, if not given) counts as one approval. A model that is
    `placed` is in the site's file, until it is withdrawn.
    """
    for file in revision.files:
        _take_in(storage, revision, file, source, link=link)
    policy = policy or read_policy(None)
    provenance = provenance or Provenance(storage.key, rule=policy.model_signature)
    examined = provenance.examine(revision.files, storage.blobs.path)
    if why := provenance.refusal(revision.repository.kind, examined):
        raise _refused(revision, why)
    who = importer or Actor(pwd.getpwuid(os.getuid()).pw_name, LOCAL)
    reviewing = Reviewing(storage, policy, ledger, Observer())
    facts = read_facts(revision.files, storage.blobs.path)
    commit = NewCommit(
        repository=revision.repository,
        oid=revision.commit,
        files=revision.files,
        title=f"Import {revision.commit[:12]}",
        author=AUTHOR,
        date=datetime.now(UTC),
    )
    try:
        with storage.metadata.engine.begin() as connection:
            check_blobs(connection, storage.blobs, revision.files)
            published = publish(connection, commit, facts, refs=[MAIN])
            access, access_changed = put_access(
                connection, published.repository_key, teams=teams, labels=labels
            )
            provenance.keep(connection, published.repository_key, commit.oid, examined)
            if access_changed:
                inherit(connection, published.repository_key)
                touch(connection, published.repository_key, commit.date)
            review = reviewing.begin(
                connection, published.repository_key, commit.oid, revision.files, who
            )
            restored = placed and place(connection, published.repository_key)
            changed = published.changed or access_changed or restored
            if changed:
                ledger.append(
                    {
                        "action": "model.import",
                        "actor": who.name,
                        "actor_kind": "local",
                        "model": str(revision.repository),
                        "commit": revision.commit,
                        "origin": revision.origin,
                        "files": {file.path: f"sha256:{file.sha256}" for file in revision.files},
                        "teams": list(access.teams),
                        "labels": dict(access.labels),
                        **review,
                    }
                )
    except (ContradictionError, RefusedError) as error:
        raise _refused(revision, str(error)) from error
    except (ConflictError, MissingBlobError) as error:
        raise RegistryError(
            f"{revision.repository} cannot be imported",
            cause=str(error),
            next_command="holdfast bundle verify DIR",
        ) from error
    return Imported(
        id=str(revision.repository),
        commit=revision.commit,
        files=len(revision.files),
        bytes=sum(file.size for file in revision.files),
        teams=access.teams,
        labels=access.labels,
        changed=changed,
    )


def _refused(revision: Revision, why: str) -> RegistryError:
    where = f"{revision.repository}@{revision.commit[:12]}"
    return RegistryError(f"{revision.repository} is not let in", where=where, cause=why)


def _take_in(
    storage: Storage,
    revision: Revision,
    file: NewFile,
    source: Callable[[str], Path],
    *,
    link: bool,
) -> None:
    where = f"{revision.repository}@{revision.commit[:12]}, {file.path}"
    try:
        if storage.blobs.has(file.sha256, file.size):
            git_oid = file.git_oid
            if git_oid is not None:
                with storage.blobs.path(file.sha256).open("rb") as stored:
                    git_oid = read_content(stored).git_oid
            size = file.size
        else:
            content = storage.blobs.add(source(file.sha256), file.sha256, link=link)
            size, git_oid = content.size, content.git_oid
    except FileNotFoundError as error:
        raise RegistryError(
            "a blob of the bundle is missing",
            where=where,
            cause=f"no {error.filename}",
            next_command="holdfast bundle verify DIR",
        ) from error
    except DigestMismatchError as error:
        raise RegistryError(
            "a blob is not what the manifest says",
            where=where,
            cause=str(error),
            next_command="holdfast bundle verify DIR",
        ) from error
    except OSError as error:
        raise RegistryError(
            "a blob cannot be stored", where=where, cause=f"{error.strerror}: {error.filename}"
        ) from error
    if size != file.size or (file.git_oid is not None and git_oid != file.git_oid):
        raise RegistryError(
            "a blob is not what the manifest says",
            where=where,
            cause=f"{size} bytes with git id {git_oid}, "
            f"the manifest says {file.size} with {file.git_oid}",
            next_command="holdfast bundle verify DIR",
        )
