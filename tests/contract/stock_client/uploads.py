"""Uploads: one file, folders, large files, many files, and what need not be sent again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from hub import digests, raises, sha256, weights
from huggingface_hub.errors import HfHubHTTPError

if TYPE_CHECKING:
    from hub import Hub

LARGE = 24_000_000  # more than one part where the hub asks for parts
MANY = 1_100  # more than a page of a tree, and than four requests of preupload


def scenario_one_file_in_every_form(hub: Hub) -> None:
    name = hub.repository()
    content = weights("one file")
    path = hub.write("w.safetensors", content)
    hub.api.upload_file(path_or_fileobj=content, path_in_repo="bytes.safetensors", repo_id=name)
    hub.api.upload_file(path_or_fileobj=path, path_in_repo="path.safetensors", repo_id=name)
    hub.api.upload_file(
        path_or_fileobj=io.BytesIO(content), path_in_repo="stream.safetensors", repo_id=name
    )
    done = hub.api.upload_file(
        path_or_fileobj=b"text", path_in_repo="notes/regular.txt", repo_id=name
    )
    assert done.commit_url == f"{hub.endpoint}/{name}/commit/{done.oid}"
    assert hub.api.model_info(name).sha == done.oid
    for each in ("bytes", "path", "stream"):
        assert hub.fetch(name, f"{each}.safetensors") == content
    assert hub.fetch(name, "notes/regular.txt") == b"text"
    held = {f.rfilename: f for f in hub.api.model_info(name, files_metadata=True).siblings}
    assert held["path.safetensors"].lfs["sha256"] == sha256(content)
    assert held["notes/regular.txt"].lfs is None


def scenario_empty_file(hub: Hub) -> None:
    name = hub.repository(repo_type="dataset")
    options = {"repo_id": name, "repo_type": "dataset"}
    hub.api.upload_file(path_or_fileobj=b"", path_in_repo="empty.parquet", **options)
    info = hub.api.dataset_info(name, files_metadata=True)
    held = {file.rfilename: file for file in info.siblings}
    assert (held["empty.parquet"].size, held["empty.parquet"].lfs) == (0, None)
    assert hub.fetch(name, "empty.parquet", repo_type="dataset") == b""


def scenario_large_file(hub: Hub) -> None:
    name = hub.repository()
    content = weights("large", LARGE // 4)
    path = hub.write("model.safetensors", content)
    hub.api.upload_file(path_or_fileobj=path, path_in_repo="model.safetensors", repo_id=name)
    assert sha256(hub.fetch(name, "model.safetensors")) == sha256(content)


def scenario_folder(hub: Hub) -> None:
    name = hub.repository()
    folder = hub.folder / "model"
    for path, content in {
        "model/model.safetensors": weights("folder"),
        "model/config.json": b'{"model_type": "llama"}',
        "model/tokenizer/vocab.txt": b"a\nb\n",
        "model/scratch/left.out": b"named by .gitignore",
        "model/notes.log": b"named by ignore_patterns",
        "model/.gitignore": b"scratch/\n",
        "model/.git/config": b"never sent",
        "model/spaces and größe #1 100%.txt": b"quoted",
    }.items():
        hub.write(path, content)
    first = hub.api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns="*.log")
    left_out = {"scratch/left.out", "notes.log", ".git/config"}
    expected = {path: digest for path, digest in digests(folder).items() if path not in left_out}
    found = hub.api.snapshot_download(name, local_dir=hub.folder / "out")
    held = digests(hub.folder / "out")
    assert held.pop(".gitattributes"), found
    assert held == expected
    # Older clients would send an empty commit for the sake of a file that is ignored.
    (folder / "scratch" / "left.out").unlink()
    again = hub.api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns="*.log")
    assert again.oid == first.oid, "nothing changed, so there is no new commit"


def scenario_folder_replaces_by_pattern(hub: Hub) -> None:
    name = hub.repository()
    hub.write("old/step-1.safetensors", weights("1"))
    hub.write("old/keep.txt", b"1")
    hub.api.upload_folder(repo_id=name, folder_path=hub.folder / "old", path_in_repo="runs/a")
    hub.write("new/step-2.safetensors", weights("2"))
    hub.api.upload_folder(
        repo_id=name,
        folder_path=hub.folder / "new",
        path_in_repo="runs/a",
        delete_patterns="*.safetensors",
    )
    assert set(hub.api.list_repo_files(name)) == {
        ".gitattributes",
        "runs/a/keep.txt",
        "runs/a/step-2.safetensors",
    }


def scenario_many_files(hub: Hub) -> None:
    name = hub.repository()
    for number in range(MANY):
        hub.write(f"many/{number % 7}/{number}.txt", str(number).encode())
    hub.api.upload_folder(repo_id=name, folder_path=hub.folder / "many")
    listed = [item.path for item in hub.api.list_repo_tree(name, recursive=True)]
    assert len(listed) == len(set(listed)) == MANY + 7 + 1
    assert hub.fetch(name, "3/304.txt") == b"304"


def scenario_git_attributes_decide(hub: Hub) -> None:
    name = hub.repository()
    hub.api.upload_file(
        path_or_fileobj=b"*.weird filter=lfs diff=lfs merge=lfs -text\n",
        path_in_repo=".gitattributes",
        repo_id=name,
    )
    hub.api.upload_file(path_or_fileobj=b"large by rule", path_in_repo="a.weird", repo_id=name)
    held = {f.rfilename: f for f in hub.api.model_info(name, files_metadata=True).siblings}
    assert held["a.weird"].lfs is not None


def scenario_content_known_elsewhere_is_usable_by_its_reader(hub: Hub) -> None:
    content = weights("shared", 50_000)
    first, second = hub.repository(), hub.repository()
    for name in (first, second):
        hub.api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id=name)
    hub.api.delete_repo(first)
    assert hub.fetch(second, "w.safetensors") == content


def scenario_a_path_that_leaves_the_folder_is_refused(hub: Hub) -> None:
    name = hub.repository()
    before = hub.api.model_info(name).sha
    with raises(HfHubHTTPError, 422):
        hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="..\\up.txt", repo_id=name)
    assert hub.api.model_info(name).sha == before
