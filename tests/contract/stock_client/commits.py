"""Commits: several operations at once, copies, conflicts, history, squashing, large-file upkeep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub import raises, weights
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from hub import Hub


def scenario_several_operations_are_one_commit(hub: Hub) -> None:
    name = hub.repository()
    first = weights("first")
    hub.api.create_commit(
        name,
        [
            CommitOperationAdd("a.txt", b"a"),
            CommitOperationAdd("folder/b.txt", b"b"),
            CommitOperationAdd("folder/deep/c.txt", b"c"),
            CommitOperationAdd("w.safetensors", first),
        ],
        commit_message="several",
    )
    done = hub.api.create_commit(
        name,
        [
            CommitOperationDelete("a.txt"),
            CommitOperationDelete("folder/", is_folder=True),
            CommitOperationCopy("w.safetensors", "copies/w.safetensors"),
            CommitOperationAdd("w.safetensors", weights("second")),
        ],
        commit_message="all at once",
        commit_description="and why",
    )
    assert set(hub.api.list_repo_files(name)) == {
        ".gitattributes",
        "copies/w.safetensors",
        "w.safetensors",
    }
    assert hub.fetch(name, "copies/w.safetensors") == first
    assert hub.fetch(name, "w.safetensors") == weights("second")
    newest = hub.api.list_repo_commits(name)[0]
    assert (newest.commit_id, newest.title, newest.message.strip(), newest.authors) == (
        done.oid,
        "all at once",
        "and why",
        ["ada"],
    )
    assert hub.fetch(name, "w.safetensors", revision=f"{done.oid}") == weights("second")


def scenario_copy_of_an_older_revision(hub: Hub) -> None:
    name = hub.repository()
    add = CommitOperationAdd
    old = hub.api.create_commit(name, [add("w.safetensors", weights("1"))], commit_message="1")
    hub.api.create_commit(name, [add("w.safetensors", weights("2"))], commit_message="2")
    copy = CommitOperationCopy("w.safetensors", "old.safetensors", src_revision=old.oid)
    hub.api.create_commit(name, [copy], commit_message="bring back")
    assert hub.fetch(name, "old.safetensors") == weights("1")
    with raises(EntryNotFoundError):
        hub.api.create_commit(
            name, [CommitOperationCopy("absent.safetensors", "x")], commit_message="no"
        )


def scenario_a_stale_parent_is_a_conflict(hub: Hub) -> None:
    name = hub.repository()
    before = hub.api.model_info(name).sha
    hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name)
    with raises(HfHubHTTPError, 412, "The branch was updated since you opened this page"):
        hub.api.upload_file(
            path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=name, parent_commit=before
        )
    assert hub.fetch(name, "a.txt") == b"1"


def scenario_delete_files(hub: Hub) -> None:
    name = hub.repository()
    paths = ("a.txt", "nested/a.txt", "nested/b.txt", "nested/deep/a.txt")
    hub.api.create_commit(
        name, [CommitOperationAdd(path, path.encode()) for path in paths], commit_message="files"
    )
    hub.api.delete_file("a.txt", name)
    hub.api.delete_files(name, ["*/deep/*"])
    assert set(hub.api.list_repo_files(name)) == {".gitattributes", "nested/a.txt", "nested/b.txt"}
    hub.api.delete_folder("nested", name)
    assert hub.api.list_repo_files(name) == [".gitattributes"]


def scenario_what_is_not_there_cannot_be_written_to(hub: Hub) -> None:
    with raises(RepositoryNotFoundError, 404, "Creating a commit assumes that the repo"):
        hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=hub.name())
    name = hub.repository()
    with raises(RevisionNotFoundError, 404):
        hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=name, revision="absent")


def scenario_history_and_last_commits(hub: Hub) -> None:
    name = hub.repository()
    made = [
        hub.api.upload_file(
            path_or_fileobj=str(number).encode(),
            path_in_repo=f"folder/{number}.txt",
            repo_id=name,
            commit_message=f"number {number}",
        ).oid
        for number in range(3)
    ]
    commits = hub.api.list_repo_commits(name)
    assert [each.commit_id for each in commits[:3]] == made[::-1]
    assert [each.title for each in commits] == [
        *("number 2", "number 1", "number 0"),
        "initial commit",
    ]
    items = hub.api.list_repo_tree(name, recursive=True, expand=True)
    last = {item.path: item.last_commit for item in items}
    assert last["folder/0.txt"].oid == made[0]
    assert last["folder/1.txt"].title == "number 1"
    assert last["folder"].oid == made[2]
    there = {item.path: item for item in hub.api.get_paths_info(name, ["folder/1.txt", "none"])}
    assert set(there) == {"folder/1.txt"}
    then = hub.api.list_repo_files(name, revision=made[0])
    assert then == [".gitattributes", "folder/0.txt"]


def scenario_super_squash(hub: Hub) -> None:
    name = hub.repository()
    for number in range(3):
        hub.api.upload_file(
            path_or_fileobj=weights(str(number)), path_in_repo="w.safetensors", repo_id=name
        )
    before = hub.api.model_info(name).sha
    hub.api.create_branch(name, branch="kept")
    hub.api.super_squash_history(name, commit_message="all in one")
    commits = hub.api.list_repo_commits(name)
    assert [each.title for each in commits] == ["all in one"]
    assert commits[0].commit_id != before
    assert hub.fetch(name, "w.safetensors") == weights("2")
    assert len(hub.api.list_repo_commits(name, revision="kept")) == 4


def scenario_large_files_are_listed_and_deleted(hub: Hub) -> None:
    name = hub.repository()
    for path in ("a.safetensors", "b.safetensors"):
        hub.api.upload_file(path_or_fileobj=weights(path), path_in_repo=path, repo_id=name)
    listed = list(hub.api.list_lfs_files(name))
    assert {each.filename for each in listed} == {"a.safetensors", "b.safetensors"}
    assert all(each.size == len(weights("x")) for each in listed)
    doomed = [each for each in listed if each.filename == "a.safetensors"]
    hub.api.permanently_delete_lfs_files(name, doomed)
    assert hub.api.list_repo_files(name) == [".gitattributes", "b.safetensors"]
    assert hub.fetch(name, "b.safetensors") == weights("b.safetensors")
    assert [each.filename for each in hub.api.list_lfs_files(name)] == ["b.safetensors"]
