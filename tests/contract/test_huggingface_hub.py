"""The registry as its stock client sees it: huggingface_hub and `hf` against a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder
from registry_parts import (
    ADA,
    BOB,
    LABELS,
    MODEL,
    SEED,
    SERVING,
    Registry,
    command,
    files_of,
    make_bundle,
    make_model,
    run_registry,
)

from postgresql_server import postgresql_server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract

# A commit made elsewhere, whose id cannot be computed from the files: it must be kept.
FOREIGN = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
ODD = "tokenizer/deep/größe 100% #1.txt"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "two workers"])
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Path
) -> Iterator[Registry]:
    if request.param == "postgresql":
        with postgresql_server() as make:
            options = ["--database", make(), "--trust-database", make()]
            yield from _started(tmp_path_factory.mktemp("registry"), model, options)
    else:
        options = ["--workers", "2"] if request.param == "two workers" else []
        yield from _started(tmp_path_factory.mktemp("registry"), model, options)


def _started(folder: Path, model: Path, options: list[str]) -> Iterator[Registry]:
    manifest, blobs = make_bundle(folder, model, version=FOREIGN)
    with run_registry(folder / "run", *options) as running:
        done = command(
            *("import", "--data", running.data, "--manifest", manifest, "--blobs", blobs),
            *("--team", "research", "--jurisdiction", "de", "--classification", "internal"),
            *(options[:2] if options[:1] == ["--database"] else []),
        )
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture
def api(registry: Registry) -> HfApi:
    return HfApi(endpoint=registry.url, token=ADA)


def stranger(registry: Registry) -> HfApi:
    return HfApi(endpoint=registry.url, token=BOB)


def test_download_of_one_file_and_where_it_is_cached(
    registry: Registry, model: Path, tmp_path: Path
) -> None:
    path = hf_hub_download(MODEL, WEIGHTS, endpoint=registry.url, token=ADA, cache_dir=tmp_path)
    assert Path(path).read_bytes() == (model / WEIGHTS).read_bytes()
    assert Path(path).parent.name == FOREIGN
    blob = Path(path).resolve().name
    assert blob == files_of(model)[WEIGHTS]


def test_download_of_a_name_that_needs_quoting(
    registry: Registry, model: Path, tmp_path: Path
) -> None:
    path = hf_hub_download(MODEL, ODD, endpoint=registry.url, token=ADA, cache_dir=tmp_path)
    assert Path(path).read_text() == (model / ODD).read_text()


def test_snapshot_is_the_model_to_the_bit(registry: Registry, model: Path, tmp_path: Path) -> None:
    found = snapshot_download(MODEL, endpoint=registry.url, token=ADA, cache_dir=tmp_path)
    assert Path(found).name == FOREIGN
    assert files_of(Path(found)) == files_of(model)


def test_snapshot_at_the_commit_with_patterns(
    registry: Registry, model: Path, tmp_path: Path
) -> None:
    snapshot_download(
        MODEL,
        revision=FOREIGN,
        allow_patterns=["*.json", "tokenizer/*"],
        endpoint=registry.url,
        token=SERVING,
        local_dir=tmp_path,
    )
    expected = {k: v for k, v in files_of(model).items() if k.startswith(("config", "tokenizer"))}
    assert files_of(tmp_path) == expected


def test_hf_download_of_the_command_line(registry: Registry, model: Path, tmp_path: Path) -> None:
    done = hf(registry, tmp_path, ADA, "download", MODEL, "--local-dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == files_of(model)


@pytest.mark.parametrize("token", [BOB, "hft_not-a-token-of-anyone", None])
def test_hf_download_without_the_right_to(
    registry: Registry, tmp_path: Path, token: str | None
) -> None:
    done = hf(registry, tmp_path, token, "download", MODEL, "--local-dir", str(tmp_path / "out"))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not files_of(tmp_path / "out") if (tmp_path / "out").exists() else True


def test_model_info(api: HfApi, model: Path) -> None:
    info = api.model_info(MODEL, files_metadata=True)
    assert (info.id, info.sha, info.author, info.private) == (MODEL, FOREIGN, "research", True)
    assert info.pipeline_tag == "text-generation"
    assert info.library_name == "transformers"
    assert info.card_data is not None
    assert info.card_data["license"] == "apache-2.0"
    assert info.config == {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    assert info.safetensors is not None
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F32": 750_000}, 750_000)
    assert info.tags is not None
    assert {"llama", "safetensors", "license:apache-2.0", "en", "holdfast"} <= set(info.tags)
    assert info.siblings is not None
    digests = files_of(model)
    assert {file.rfilename for file in info.siblings} == set(digests)
    for file in info.siblings:
        assert file.size == (model / file.rfilename).stat().st_size
        assert file.blob_id == git_blob(model / file.rfilename, lfs=file.lfs is not None)
        if file.lfs is not None:
            assert file.lfs.sha256 == digests[file.rfilename]
    assert [file.rfilename for file in info.siblings if file.lfs] == [WEIGHTS]


def test_model_info_of_what_is_asked_for(api: HfApi) -> None:
    info = api.model_info(MODEL, expand=["sha", "tags"])
    assert info.sha == FOREIGN
    assert info.siblings is None


def test_files_and_folders(api: HfApi, model: Path) -> None:
    assert sorted(api.list_repo_files(MODEL)) == sorted(files_of(model))
    top = {item.path: item for item in api.list_repo_tree(MODEL)}
    assert set(top) == {"README.md", "config.json", "empty.txt", WEIGHTS, "tokenizer"}
    assert isinstance(top["tokenizer"], RepoFolder)
    inside = list(api.list_repo_tree(MODEL, "tokenizer", recursive=True, expand=True))
    assert {item.path for item in inside} == {"tokenizer/deep", "tokenizer/vocab.txt", ODD}
    file = next(item for item in inside if isinstance(item, RepoFile))
    assert file.last_commit is not None
    assert file.last_commit.oid == FOREIGN
    assert file.security is not None
    assert file.security.safe is True, "an import is scanned before it is there"
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(MODEL, "no-such-folder"))


def test_paths_info(api: HfApi) -> None:
    found = api.get_paths_info(MODEL, [WEIGHTS, "tokenizer", "absent", ODD], expand=True)
    assert {item.path for item in found} == {WEIGHTS, "tokenizer", ODD}
    weights = next(item for item in found if item.path == WEIGHTS)
    assert isinstance(weights, RepoFile)
    assert weights.lfs is not None


def test_refs_and_commits(api: HfApi) -> None:
    refs = api.list_repo_refs(MODEL, include_pull_requests=True)
    assert [(ref.name, ref.target_commit) for ref in refs.branches] == [("main", FOREIGN)]
    assert refs.pull_requests == []
    assert [commit.commit_id for commit in api.list_repo_commits(MODEL)] == [FOREIGN]


def test_existence(api: HfApi) -> None:
    assert api.repo_exists(MODEL)
    assert not api.repo_exists("research/absent")
    assert not api.repo_exists("nonamespace")
    assert api.revision_exists(MODEL, "main")
    assert api.revision_exists(MODEL, FOREIGN)
    assert not api.revision_exists(MODEL, "refs/pr/1")
    assert api.file_exists(MODEL, "config.json")
    assert not api.file_exists(MODEL, "absent.json")
    api.auth_check(MODEL)


def test_safetensors_header_is_read_by_ranges(api: HfApi) -> None:
    metadata = api.get_safetensors_metadata(MODEL)
    assert metadata.parameter_count == {"F32": 750_000}


def test_listing(api: HfApi, registry: Registry) -> None:
    assert [item.id for item in api.list_models()] == [MODEL]
    assert [item.id for item in api.list_models(author="research", search="TIN")] == [MODEL]
    assert [item.id for item in api.list_models(filter="llama", limit=5)] == [MODEL]
    assert list(api.list_models(filter="bert")) == []
    assert list(api.list_models(search="absent")) == []
    full = next(iter(api.list_models(full=True, cardData=True, sort="last_modified")))
    assert full.sha == FOREIGN
    assert full.siblings
    assert full.card_data is not None
    assert list(stranger(registry).list_models()) == []


def test_whoami(api: HfApi, registry: Registry) -> None:
    me = api.whoami()
    assert me["name"] == "ada"
    assert [org["name"] for org in me["orgs"]] == ["research"]
    with pytest.raises(HfHubHTTPError) as refused:
        HfApi(endpoint=registry.url, token="hft_not-a-token-of-anyone").whoami()
    assert refused.value.response.status_code == 401


def test_file_system_reads_ranges(registry: Registry, model: Path) -> None:
    files = HfFileSystem(endpoint=registry.url, token=ADA, skip_instance_cache=True)
    content = (model / WEIGHTS).read_bytes()
    assert files.cat_file(f"{MODEL}/{WEIGHTS}", start=1000, end=2000) == content[1000:2000]
    with files.open(f"{MODEL}/{WEIGHTS}", "rb", block_size=65536) as file:
        file.seek(1_000_000)
        assert file.read(100_000) == content[1_000_000:1_100_000]
        file.seek(-10, os.SEEK_END)
        assert file.read() == content[-10:]
    assert files.isfile(f"{MODEL}/{ODD}")
    assert files.isdir(f"{MODEL}/tokenizer")
    assert not files.exists(f"{MODEL}/absent")
    assert f"{MODEL}/config.json" in files.ls(MODEL, detail=False)
    assert len(files.glob(f"{MODEL}/**/*.txt")) == 3


def test_what_one_may_not_see_is_absent(registry: Registry, tmp_path: Path) -> None:
    api = stranger(registry)
    for call in (
        lambda: api.model_info(MODEL),
        lambda: api.list_repo_files(MODEL),
        lambda: list(api.list_repo_tree(MODEL)),
        lambda: api.get_paths_info(MODEL, ["config.json"]),
        lambda: api.list_repo_refs(MODEL),
        lambda: api.list_repo_commits(MODEL),
        lambda: api.auth_check(MODEL),
        lambda: api.hf_hub_download(MODEL, "config.json", cache_dir=tmp_path),
        lambda: api.snapshot_download(MODEL, cache_dir=tmp_path),
    ):
        with pytest.raises(RepositoryNotFoundError) as refused:
            call()
        assert refused.value.response.status_code == 404
    assert not api.repo_exists(MODEL)
    assert not api.file_exists(MODEL, "config.json")


def test_no_token_and_a_wrong_one(registry: Registry, tmp_path: Path) -> None:
    nobody = HfApi(endpoint=registry.url, token=False)
    with pytest.raises(RepositoryNotFoundError) as missing:
        nobody.hf_hub_download(MODEL, "config.json", cache_dir=tmp_path)
    assert missing.value.response.status_code == 401
    wrong = HfApi(endpoint=registry.url, token="hft_not-a-token-of-anyone")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as refused:
        wrong.model_info(MODEL)
    assert refused.value.response.status_code == 401
    assert not isinstance(refused.value, RepositoryNotFoundError)


def test_what_is_missing_is_named(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(MODEL, "absent.json", cache_dir=tmp_path)
    # The client remembers the absence under the commit, which it learns from the answer.
    remembered = tmp_path / "models--research--tiny" / ".no_exist" / FOREIGN / "absent.json"
    assert remembered.exists()
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(MODEL, "config.json", revision="absent", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.model_info(MODEL, revision="refs/pr/7")


def test_every_read_is_on_the_ledger(registry: Registry, tmp_path: Path) -> None:
    before = len(registry.ledger())
    hf_hub_download(MODEL, "config.json", endpoint=registry.url, token=ADA, cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        stranger(registry).model_info(MODEL)
    events = registry.ledger()[before:]
    assert [(e["actor"], e["operation"], e["method"], e["status"]) for e in events] == [
        ("ada", "resolve", "HEAD", 200),
        ("ada", "resolve", "GET", 200),
        ("bob", "info", "GET", 404),
    ]
    assert events[1]["path"] == "config.json"
    assert events[1]["commit"] == FOREIGN
    assert events[1]["allowed"]
    assert not events[2]["allowed"]
    assert ADA not in str(events)


def test_transformers_style_probes_get_plain_404s(registry: Registry) -> None:
    for path in ("/api/agent-harnesses", "/api/telemetry/x"):
        assert registry.request(path)[0] == 404


def test_seeded_folder_is_served_by_one_command(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", weights=4000)
    seed: dict[str, Any] = {
        **SEED,
        "models": [{"id": MODEL, "path": "../model", "teams": ["research"], "labels": LABELS}],
    }
    for _ in range(2):  # the second start finds everything there
        with run_registry(tmp_path / "run", seed=seed) as running:
            found = snapshot_download(
                MODEL, endpoint=running.url, token=ADA, local_dir=tmp_path / "out"
            )
            assert files_of(Path(found)) == files_of(folder)
            imports = [e for e in running.ledger() if e["action"] == "model.import"]
            assert len(imports) == 1


def hf(
    registry: Registry, home: Path, token: str | None, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": registry.url,
        "NO_PROXY": "127.0.0.1",
        **({"HF_TOKEN": token} if token else {}),
    }
    return subprocess.run(
        [str(Path(sys.executable).parent / "hf"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def git_blob(path: Path, *, lfs: bool) -> str:
    content = path.read_bytes()
    if lfs:
        digest = files_of(path.parent)[path.name]
        content = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{digest}\nsize {len(content)}\n"
        ).encode()
    done = subprocess.run(
        ["git", "hash-object", "-t", "blob", "--stdin"],
        input=content,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()
