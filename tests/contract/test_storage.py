"""A repository's whole life through the stock client leaves nothing behind and nothing wrong."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from registry_parts import ADA, SEED, Registry, free_port, run_registry, wait_until_healthy
from upload_parts import Uploader, weights

from holdfast_hub_protocol.quotas import NO_QUOTAS
from holdfast_hub_protocol.staging import namespace_usages
from holdfast_model_registry.check import Scrub, check
from holdfast_model_registry.gc import collect
from holdfast_model_registry.storage import Locations, open_storage
from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_model_registry.check import Finding
    from holdfast_model_registry.storage import Storage

pytestmark = [
    pytest.mark.contract,
    # The client's own, of its HTTP library, when it uploads a buffer.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

QUOTA = 20_000_000


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with postgresql_server() as make:
        yield make()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Return where the database is; '' is SQLite in the data folder."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("database"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("storage")
    config = folder / "registry.yml"
    config.write_text(yaml.safe_dump({"quotas": {"teams": {"small": QUOTA}}}))
    teams = {"research": "admin", "small": "admin"}
    seed = {**SEED, "users": [{**SEED["users"][0], "teams": teams}]}
    arguments = ["--config", str(config), "--jurisdiction", "de"]
    arguments += ["--database", database_url] if database_url else []
    with run_registry(folder / "run", *arguments, seed=seed) as running:
        yield running


@pytest.fixture
def api(registry: Registry) -> HfApi:
    return HfApi(endpoint=registry.url, token=ADA)


@pytest.fixture
def storage(registry: Registry, database_url: str) -> Iterator[Storage]:
    """Open the registry's storage beside it, as the commands do."""
    opened = open_storage(Locations(registry.data, database_url))
    yield opened
    opened.close()


def findings(storage: Storage) -> list[Finding]:
    return check(storage, scrub=Scrub()).findings


def upload(api: HfApi, name: str, path: str, content: bytes, **more: Any) -> str:
    """Upload through LFS: the client takes a buffer so."""
    done = api.upload_file(
        path_or_fileobj=io.BytesIO(content), path_in_repo=path, repo_id=name, **more
    )
    return str(done.oid)


def test_a_repository_s_whole_life_leaves_nothing_behind_and_nothing_wrong(
    registry: Registry, api: HfApi, storage: Storage
) -> None:
    name = api.create_repo("research/life").repo_id
    upload(api, name, "a.safetensors", weights(1))
    upload(api, name, "b.safetensors", weights(2), create_pr=True)
    api.merge_pull_request(name, discussion_num=1)
    api.create_branch(name, branch="side")
    api.create_commit(
        name,
        [
            CommitOperationAdd("c.safetensors", io.BytesIO(weights(3))),
            CommitOperationAdd("notes/README.txt", b"notes"),
            CommitOperationDelete("a.safetensors"),
        ],
        commit_message="Change",
        revision="side",
    )
    api.create_tag(name, tag="v1", revision="side")
    for number in range(4, 7):
        upload(api, name, "c.safetensors", weights(number))
    api.super_squash_history(name)
    doomed = [each for each in api.list_lfs_files(name) if each.filename == "b.safetensors"]
    api.permanently_delete_lfs_files(name, doomed)
    api.delete_tag(name, tag="v1")
    api.delete_branch(name, branch="side")
    api.move_repo(name, "research/moved")
    other = api.create_repo("research/other").repo_id
    upload(api, other, "a.safetensors", weights(1))
    assert findings(storage) == []
    for _ in range(2):  # commits go in the second run
        collect(storage, grace=0)
        assert findings(storage) == []
    assert api.hf_hub_download("research/moved", "c.safetensors", force_download=True)
    api.delete_repo("research/moved")
    collect(storage, grace=0)
    assert findings(storage) == []
    large = [
        path
        for path in (registry.data / "blobs" / "sha256").glob("*/*")
        if path.stat().st_size > 500_000
    ]
    assert [path.read_bytes() for path in large] == [weights(1)], "only the other's is left"


def test_a_full_quota_reaches_the_person_at_the_client(
    api: HfApi, storage: Storage, tmp_path: Path
) -> None:
    name = api.create_repo("small/model").repo_id
    upload(api, name, "w.safetensors", weights(10))
    path = tmp_path / "large.safetensors"
    path.write_bytes(weights(11, count=QUOTA // 4))
    for way in (str(path), io.BytesIO(path.read_bytes())):  # by xet, and by LFS
        with pytest.raises(HfHubHTTPError, match=r"quota of small exceeded.*KiB held"):
            api.upload_file(path_or_fileobj=way, path_in_repo="large.safetensors", repo_id=name)
    usages = namespace_usages(storage.metadata.engine, NO_QUOTAS)
    held = {usage.namespace: usage.held for usage in usages}["small"]
    assert 600_000 < held < 700_000
    upload(api, name, "more.safetensors", weights(12))


def test_uploads_that_nobody_commits_are_not_seen(registry: Registry, api: HfApi) -> None:
    api.create_repo("research/killed", exist_ok=True)
    uploader = Uploader(registry.url, weights(20))
    with uploader.client:
        uploader.batch()
        uploader.send()
    assert "w.safetensors" not in api.list_repo_files("research/killed")
    stranger = httpx.Client(trust_env=False)
    with stranger:
        href = uploader.told["batch"]["actions"]["upload"]["href"]
        assert stranger.get(href).status_code in {401, 404, 405}


def test_the_stock_client_uploads_in_parts(tmp_path: Path) -> None:
    """With parts of 300 kB, as real ones of 256 MiB take too long to send."""
    script = Path(__file__).parents[1] / "model_registry" / "dying_registry.py"  # never armed
    port = free_port()
    teams = {"research": "admin"}
    seed = {**SEED, "users": [{**SEED["users"][0], "teams": teams}]}
    (tmp_path / "seed.yml").write_text(yaml.safe_dump(seed))
    options = ["--data", tmp_path / "data", "--seed", tmp_path / "seed.yml"]
    options += ["--listen", f"127.0.0.1:{port}", "--jurisdiction", "de"]
    environment = {**os.environ, "DYING_ARMED": str(tmp_path / "armed"), "DYING_PARTS": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, script, "serve", *options], env=environment, stdout=log, stderr=log
        )
    registry = Registry(f"http://127.0.0.1:{port}", tmp_path / "data", process)
    try:
        wait_until_healthy(registry, tmp_path / "log")
        api = HfApi(endpoint=registry.url, token=ADA)
        name = api.create_repo("research/parts").repo_id
        upload(api, name, "w.safetensors", weights(30))
        asked = [event for event in registry.ledger() if event.get("operation") == "lfs-upload"]
        assert [event["method"] for event in asked] == ["PUT", "PUT", "PUT", "POST"]
        _, _, content = registry.request(f"/{name}/resolve/main/w.safetensors", ADA)
        assert content == weights(30)
    finally:
        registry.stop()
