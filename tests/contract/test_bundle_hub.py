"""A bundle's models come from a hub with the stock client; here the hub is our own registry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from registry_parts import ADA, MODEL, command, files_of, make_bundle, make_model, run_registry

from holdfast_installer.bundle.digests import blob_path

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.contract

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# A process of its own: huggingface_hub reads HF_ENDPOINT when it is imported.
LOCK_AND_FETCH = """
import json, sys
from holdfast_installer.bundle.lockfile import ModelSource
from holdfast_installer.bundle.models import fetch_model_file, lock_model
from holdfast_installer.bundle.store import Store

store = Store()
artifacts = lock_model(ModelSource(id="here/named", source=sys.argv[1]), store)
locked = [each.filename for each in artifacts if store.find(each.digest)]
for each in artifacts:
    if not store.find(each.digest):
        fetch_model_file(each, store)
print(json.dumps({"locked": locked, "artifacts": [each.model_dump() for each in artifacts]}))
"""


def test_a_snapshot_of_a_hub_is_pinned_to_its_commit_and_fetched_whole(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    manifest, blobs = make_bundle(tmp_path, model, version=COMMIT)
    cache = tmp_path / "cache"
    with run_registry(tmp_path / "registry") as hub:
        imported = command(
            *("import", "--data", hub.data, "--manifest", manifest, "--blobs", blobs),
            *("--team", "research", "--jurisdiction", "de", "--classification", "internal"),
        )
        assert imported.returncode == 0, imported.stderr
        done = subprocess.run(
            [sys.executable, "-c", LOCK_AND_FETCH, MODEL],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_TOKEN": ADA,
                "HF_HOME": str(tmp_path / "hf"),
                "HOLDFAST_CACHE": str(cache),
            },
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    artifacts = told["artifacts"]
    assert {each["version"] for each in artifacts} == {COMMIT}
    assert {each["origin"] for each in artifacts} == {f"hub:{MODEL}@{COMMIT}"}
    assert {each["licence"] for each in artifacts} == {"apache-2.0"}
    pinned = {each["filename"]: each["digest"].removeprefix("sha256:") for each in artifacts}
    assert pinned == files_of(model)
    assert "model.safetensors" not in told["locked"], "weights were fetched while locking"
    for each in artifacts:
        assert blob_path(cache / "blobs", each["digest"]).stat().st_size == each["size"]
        assert bool(each["git_oid"]) == (each["filename"] != "model.safetensors")
    assert not list((cache / "partial").iterdir()), "something was left behind"
