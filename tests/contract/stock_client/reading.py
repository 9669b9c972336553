"""Reading: downloads by every way there is, what they are called, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from hub import digests, raises, sha256, weights
from huggingface_hub import CommitOperationAdd, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from hub import Hub


def _filled(hub: Hub) -> tuple[str, str, dict[str, bytes]]:
    name = hub.repository()
    files = {
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "model.safetensors": weights("reading", 100_000),
        "sub/größe 100% #1.txt": b"quoted",
        "sub/deep/x.txt": b"x",
    }
    done = hub.api.create_commit(
        name,
        [CommitOperationAdd(path, content) for path, content in files.items()],
        commit_message="to be read",
    )
    return name, done.oid, files


def scenario_snapshot_is_the_same_to_the_bit(hub: Hub) -> None:
    name, commit, files = _filled(hub)
    expected = {path: sha256(content) for path, content in files.items()}
    found = Path(hub.api.snapshot_download(name, cache_dir=hub.cache()))
    assert found.name == commit
    held = digests(found)
    del held[".gitattributes"]
    assert held == expected
    part = hub.folder / "part"
    hub.api.snapshot_download(
        name, revision=commit, local_dir=part, allow_patterns=["sub/*", "*.json"]
    )
    assert set(digests(part)) == set(files) - {"model.safetensors"}


def scenario_a_second_download_transfers_nothing(hub: Hub) -> None:
    name, commit, _ = _filled(hub)
    cache = hub.cache()
    first = hub.api.hf_hub_download(name, "model.safetensors", cache_dir=cache)
    then = Path(first).resolve().stat()
    again = hub.api.hf_hub_download(name, "model.safetensors", cache_dir=cache)
    assert again == first
    assert Path(again).resolve().stat() == then
    pinned = hub.api.hf_hub_download(
        name, "model.safetensors", revision=commit, cache_dir=cache, local_files_only=True
    )
    assert Path(pinned).resolve().stat() == then


def scenario_metadata_of_a_file(hub: Hub) -> None:
    name, commit, files = _filled(hub)
    token = hub.api.token
    large = get_hf_file_metadata(hf_hub_url(name, "model.safetensors"), token=token)
    assert large.etag == sha256(files["model.safetensors"])
    assert (large.commit_hash, large.size) == (commit, len(files["model.safetensors"]))
    small = get_hf_file_metadata(hf_hub_url(name, "sub/größe 100% #1.txt"), token=token)
    assert len(small.etag) == 40, "a git object id"
    assert hub.api.file_exists(name, "config.json")
    assert not hub.api.file_exists(name, "absent.json")
    assert hub.api.revision_exists(name, commit)
    assert not hub.api.revision_exists(name, "absent")


def scenario_information(hub: Hub) -> None:
    name, commit, files = _filled(hub)
    info = hub.api.model_info(name, files_metadata=True)
    assert info.sha == commit
    sizes = {file.rfilename: file.size for file in info.siblings}
    del sizes[".gitattributes"]
    assert sizes == {path: len(content) for path, content in files.items()}
    assert info.config == {"model_type": "llama"}
    assert info.safetensors.total == 100_000
    assert hub.api.model_info(name, expand=["sha"]).siblings is None
    with raises(BadRequestError, 400):
        hub.api.model_info(name, expand=["foo"])
    assert hub.api.get_safetensors_metadata(name).parameter_count == {"F32": 100_000}


def scenario_what_is_missing_has_its_class(hub: Hub) -> None:
    name, commit, _ = _filled(hub)
    cache = hub.cache()
    with raises(EntryNotFoundError, 404):
        hub.api.hf_hub_download(name, "absent.json", cache_dir=cache)
    folder = f"models--{name.replace('/', '--')}"
    assert (cache / folder / ".no_exist" / commit / "absent.json").exists()
    with raises(RevisionNotFoundError, 404):
        hub.api.hf_hub_download(name, "config.json", revision="absent", cache_dir=cache)
    with raises(RevisionNotFoundError, 404):
        hub.api.snapshot_download(name, revision="0" * 40, cache_dir=cache)
    with raises(RepositoryNotFoundError, 404):
        hub.api.hf_hub_download(f"{name}-absent", "config.json", cache_dir=cache)
    with raises(EntryNotFoundError, 404):
        list(hub.api.list_repo_tree(name, "no-such-folder"))


def scenario_what_one_may_not_see_is_absent(hub: Hub) -> None:
    name, _, _ = _filled(hub)
    bob = hub.caller("bob")
    for call in (
        lambda: bob.model_info(name),
        lambda: list(bob.list_repo_tree(name)),
        lambda: bob.hf_hub_download(name, "config.json", cache_dir=hub.cache()),
        lambda: bob.snapshot_download(name, cache_dir=hub.cache()),
        lambda: bob.list_repo_commits(name),
        lambda: bob.list_repo_refs(name),
        lambda: bob.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=name),
        lambda: bob.delete_repo(name),
        lambda: list(bob.get_repo_discussions(name)),
    ):
        with raises(RepositoryNotFoundError, 404):
            call()
    with raises(RepositoryNotFoundError, 401):
        hub.stranger().model_info(name)
    wrong = type(hub.api)(endpoint=hub.endpoint, token="hft_of-nobody-at-all-0001")
    with raises(HfHubHTTPError, 401, "Invalid credentials"):
        wrong.model_info(name)


def scenario_quarantine_is_a_disabled_repository(hub: Hub) -> None:
    name = hub.names["quarantined"]
    reader = hub.caller("eve")
    disabled = "Access to this resource is disabled"
    with raises(DisabledRepoError, 403, disabled):
        get_hf_file_metadata(hf_hub_url(name, "config.json"), token=reader.token)
    # Downloads look whether the cache would do, and say so; why it had to is the cause.
    for call in (
        lambda: reader.hf_hub_download(name, "config.json", cache_dir=hub.cache()),
        lambda: reader.snapshot_download(name, cache_dir=hub.cache()),
    ):
        try:
            call()
        except LocalEntryNotFoundError as error:
            with raises(DisabledRepoError, 403, disabled):
                raise error.__cause__ or error  # noqa: B904 - it is the cause that is looked at
        else:
            raise AssertionError("a reader got what is in quarantine")
    # Who writes to it may, to see what is wrong.
    assert hub.fetch(name, "config.json")
