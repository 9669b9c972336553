"""What the policy refuses, as the stock client shows it; what it holds, as others see it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import DisabledRepoError, HfHubHTTPError, LocalEntryNotFoundError
from registry_parts import ADA, BOB, SEED, Registry, run_registry

from holdfast_model_registry.admission.policy import read_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract

PEOPLE = {
    **SEED,
    "users": [
        {"name": "ada", "teams": {"research": "write"}, "tokens": [{"secret": ADA}]},
        {"name": "bob", "teams": ["research"], "tokens": [{"secret": BOB}]},
    ],
}
REFUSED = {
    "trained.bin": (pickle.dumps({"a": 1}), "trained.bin: a Python pickle"),
    "model.safetensors": (b"\x02\0\0\0\0\0\0\0{}more", "4 bytes after the last tensor"),
    "code.py": (b"print(1)\n", "code.py: a program"),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder: Path = tmp_path_factory.mktemp("policy")
    policy = folder / "policy.yml"
    strict = {"model_pickle": "refuse", "model_remote_code": "refuse"}
    policy.write_text(yaml.safe_dump({**read_policy(None).model_dump(mode="json"), **strict}))
    options = ("--jurisdiction", "de", "--policy", str(policy))
    with run_registry(folder / "run", *options, seed=PEOPLE) as running:
        HfApi(running.url, ADA).create_repo("research/made")
        HfApi(running.url, ADA).create_repo("research/data", repo_type="dataset")
        yield running


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_client_shows_why(registry: Registry, name: str) -> None:
    content, words = REFUSED[name]
    api = HfApi(registry.url, ADA)
    with pytest.raises(HfHubHTTPError, match=words) as caught:
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="research/made")
    assert caught.value.response.status_code == 403
    assert name not in api.list_repo_files("research/made")


def test_what_is_held_is_marked_and_kept_from_other_readers(registry: Registry) -> None:
    ada, bob = HfApi(registry.url, ADA), HfApi(registry.url, BOB)
    before = ada.model_info("research/made").sha
    content = bytes(range(256))
    ada.upload_file(path_or_fileobj=content, path_in_repo="unknown.dat", repo_id="research/made")
    (held,) = ada.get_paths_info("research/made", ["unknown.dat"], expand=True)
    assert held.security is not None
    assert held.security.status == "suspicious"
    assert ada.hf_hub_download("research/made", "unknown.dat", cache_dir=registry.data / "ada")
    with pytest.raises((DisabledRepoError, LocalEntryNotFoundError)):
        bob.hf_hub_download("research/made", ".gitattributes", cache_dir=registry.data / "bob")
    old = {"revision": before, "cache_dir": registry.data / "bob"}
    assert bob.hf_hub_download("research/made", ".gitattributes", **old)
    ada.delete_file("unknown.dat", "research/made")
    assert bob.hf_hub_download(
        "research/made", ".gitattributes", cache_dir=registry.data / "bob", force_download=True
    )


def test_data_sets_have_a_policy_of_their_own(registry: Registry) -> None:
    api = HfApi(registry.url, ADA)
    operations = [CommitOperationAdd(name, content) for name, (content, _) in REFUSED.items()]
    api.create_commit("research/data", operations, commit_message="x", repo_type="dataset")
    bob = HfApi(registry.url, BOB)
    path = bob.hf_hub_download(
        "research/data", "code.py", repo_type="dataset", cache_dir=registry.data / "bob"
    )
    assert path
