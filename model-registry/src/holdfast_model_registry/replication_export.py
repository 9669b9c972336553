"""Writing repositories into a folder that is carried to another registry.

    DIR/repositories/models/org/name/state.json     signed state
    DIR/repositories/models/org/name/<commit>.json  signed manifest of each commit
    DIR/blobs/sha256/ab/abcd…                       every file's content, once

What is there already is not written again: an interrupted export goes on where it stopped.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from holdfast_hub_protocol.blobs import read_content
from holdfast_model_registry import commit_manifest
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.lineage_labels import may_be_in
from holdfast_model_registry.replication import Copied
from holdfast_model_registry.replication_documents import sign_state, state_of
from holdfast_model_registry.replication_sources import repository_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast_hub_protocol.blobs import BlobStore
    from holdfast_hub_protocol.records import Repository
    from holdfast_model_registry.replication import Place
    from holdfast_model_registry.storage import Storage


def export(
    storage: Storage,
    repository: Repository,
    folder: Path,
    place: Place,
    step: Callable[[int], None] = lambda _: None,
) -> Copied:
    """Write one repository for a registry that stands in `place`; refuse what may not go there."""
    copied = Copied(str(repository.id), repository.id.kind)
    with storage.metadata.engine.connect() as connection:
        state = state_of(connection, repository)
        copied.refused = may_be_in(state.labels, place.jurisdiction, place.at_most)
        if copied.refused:
            return copied
        target = repository_folder(folder, repository.id)
        target.mkdir(parents=True, exist_ok=True)
        for oid in state.commits:
            text = commit_manifest.read_envelope_text(connection, repository.key, oid)
            if text is None:  # state_of lists only commits that have one
                raise AssertionError(oid)
            path = target / f"{oid}.json"
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            manifest = commit_manifest.verify(text, (storage.key.trusted,)).manifest
            for file in manifest.files:
                if _carry(storage.blobs, file.sha256, folder, step):
                    copied.blobs += 1
                    copied.bytes += file.size
            _write(path, text)  # after its blobs: what is listed is all there
            copied.commits += 1
    copied.refs = dict(state.refs)
    copied.changed = copied.commits > 0
    _write(target / "state.json", sign_state(state, storage.key))
    return copied


def _carry(blobs: BlobStore, sha256: str, folder: Path, step: Callable[[int], None]) -> bool:
    """Copy a blob, read and checked on its way; return whether it was not there."""
    final = folder / "blobs" / "sha256" / sha256[:2] / sha256
    if final.is_file():
        return False
    final.parent.mkdir(parents=True, exist_ok=True)
    fresh = final.with_name(f".{sha256}.{os.getpid()}")
    try:
        shutil.copyfile(blobs.path(sha256), fresh)
        with fresh.open("rb") as file:
            content = read_content(file)
            os.fsync(file.fileno())
        if content.sha256 != sha256:
            raise RegistryError(
                "a blob is damaged here",
                where=str(blobs.path(sha256)),
                cause=f"it has SHA-256 {content.sha256}",
                next_command="holdfast-model-registry check --deep",
            )
        fresh.replace(final)
    finally:
        fresh.unlink(missing_ok=True)
    step(content.size)
    return True


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
