"""A folder of files has one commit id, whether a bundle or a registry takes it in.

The wall between the installer and the wire protocol has each of them count for itself.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_installer.bundle import models
from holdfast_installer.bundle.lockfile import ModelSource
from holdfast_installer.bundle.store import Store
from holdfast_model_registry import folder as registry

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.contract

NAMES = (
    *("a", "b.txt", "a-b", "a.b", "nested/x", "nested.txt", "nested0", "deep/er/y.bin", "ü/ß.gz"),
    *("config.json", "W.SAFETENSORS", "spaces in it", ".gitattributes", ".cache/gone"),
)


@pytest.mark.parametrize("seed", range(5))
def test_a_folder_has_one_commit_everywhere(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    here = tmp_path / "model"
    for name in chance.sample(NAMES, 9):
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(5_000)))
    source = ModelSource(id="here/it", source=str(here))
    artifacts = models.lock_model(source, Store(tmp_path / "cache"))
    revision, _ = registry.read_folder(RepositoryId.parse("here/it"), here)
    assert {each.version for each in artifacts} == {revision.commit}
    assert {(each.filename, each.digest, each.size, each.git_oid) for each in artifacts} == {
        (file.path, f"sha256:{file.sha256}", file.size, file.git_oid or "")
        for file in revision.files
    }


def test_both_hold_the_same_files_for_large_and_leave_the_same_out() -> None:
    assert models._LFS_SUFFIXES == registry.LFS_SUFFIXES
    assert models._LFS_SIZE == registry.LARGEST_REGULAR_FILE
    assert models._IGNORED == registry.IGNORED
