"""Branches, tags and pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub import raises, weights
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RevisionNotFoundError,
)

if TYPE_CHECKING:
    from hub import Hub


def scenario_branches(hub: Hub) -> None:
    name = hub.repository()
    first = hub.api.model_info(name).sha
    second = hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name).oid
    hub.api.create_branch(name, branch="of/main")
    hub.api.create_branch(name, branch="of-first", revision=first)
    with raises(HfHubHTTPError, 409, "already exists"):
        hub.api.create_branch(name, branch="of-first")
    hub.api.create_branch(name, branch="of-first", exist_ok=True)
    with raises(RevisionNotFoundError, 404):
        hub.api.create_branch(name, branch="of-none", revision="absent")
    third = hub.api.upload_file(
        path_or_fileobj=b"2", path_in_repo="b.txt", repo_id=name, revision="of/main"
    ).oid
    found = {ref.name: ref.target_commit for ref in hub.api.list_repo_refs(name).branches}
    assert found == {"main": second, "of-first": first, "of/main": third}
    assert hub.fetch(name, "b.txt", revision="of/main") == b"2"
    with raises(EntryNotFoundError, 404):
        hub.fetch(name, "b.txt")
    hub.api.delete_branch(name, branch="of/main")
    with raises(RevisionNotFoundError, 404):
        hub.api.model_info(name, revision="of/main")
    with raises(HfHubHTTPError, text="Cannot delete refs/heads/main"):
        hub.api.delete_branch(name, branch="main")


def scenario_tags(hub: Hub) -> None:
    name = hub.repository()
    first = hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name).oid
    hub.api.create_tag(name, tag="v1", tag_message="the first")
    second = hub.api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=name).oid
    hub.api.create_tag(name, tag="v2", revision=second[:8])
    with raises(HfHubHTTPError, 409):
        hub.api.create_tag(name, tag="v1")
    hub.api.create_tag(name, tag="v1", exist_ok=True)
    found = {ref.name: ref.target_commit for ref in hub.api.list_repo_refs(name).tags}
    assert found == {"v1": first, "v2": second}
    assert hub.fetch(name, "a.txt", revision="v1") == b"1"
    hub.api.delete_tag(name, tag="v1")
    with raises(RevisionNotFoundError, 404):
        hub.api.model_info(name, revision="v1")
    with raises(RevisionNotFoundError, 404):
        hub.api.delete_tag(name, tag="v1")


def scenario_a_pull_request_of_a_commit(hub: Hub) -> None:
    name = hub.repository()
    hub.api.upload_file(path_or_fileobj=b"1", path_in_repo="old.txt", repo_id=name)
    done = hub.api.create_commit(
        name,
        [
            CommitOperationAdd("w.safetensors", weights("pull request")),
            CommitOperationDelete("old.txt"),
        ],
        commit_message="Propose weights",
        commit_description="They are better",
        create_pr=True,
    )
    assert (done.pr_num, done.pr_revision) == (1, "refs/pr/1")
    assert done.pr_url == f"{hub.endpoint}/{name}/discussions/1"
    assert "w.safetensors" not in hub.api.list_repo_files(name)
    assert hub.fetch(name, "w.safetensors", revision="refs/pr/1") == weights("pull request")
    refs = hub.api.list_repo_refs(name, include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    hub.api.upload_file(
        path_or_fileobj=b"more", path_in_repo="more.txt", repo_id=name, revision="refs/pr/1"
    )
    listed = list(hub.api.get_repo_discussions(name))
    assert [(each.num, each.title, each.status, each.author) for each in listed] == [
        (1, "Propose weights", "open", "ada")
    ]
    hub.api.comment_discussion(name, 1, comment="Thanks")
    details = hub.api.get_discussion_details(name, 1)
    assert details.is_pull_request
    assert details.target_branch == "refs/heads/main"
    assert "more.txt" in (details.diff or "")
    assert "Thanks" in [getattr(event, "content", "") for event in details.events]
    hub.api.merge_pull_request(name, 1, comment="Merged")
    assert hub.api.get_discussion_details(name, 1).status == "merged"
    assert hub.api.list_repo_files(name) == [".gitattributes", "more.txt", "w.safetensors"]
    assert hub.fetch(name, "w.safetensors") == weights("pull request")


def scenario_a_draft_and_a_discussion(hub: Hub) -> None:
    name = hub.repository()
    talk = hub.api.create_discussion(name, title="A question", description="Which licence?")
    draft = hub.api.create_pull_request(name, title="A draft")
    assert (talk.num, draft.num, draft.status) == (1, 2, "draft")
    assert hub.api.model_info(name, revision="refs/pr/2").sha == hub.api.model_info(name).sha
    hub.api.change_discussion_status(name, 2, "closed")
    assert hub.api.get_discussion_details(name, 2).status == "closed"
    hub.api.rename_discussion(name, 1, new_title="An answer")
    assert hub.api.get_discussion_details(name, 1).title == "An answer"
    kinds = {each.num: each.is_pull_request for each in hub.api.get_repo_discussions(name)}
    assert kinds == {1: False, 2: True}
    with raises(BadRequestError, 400):
        hub.api.merge_pull_request(name, 2)


def scenario_a_reader_who_may_not_write_proposes(hub: Hub) -> None:
    name = hub.repository()
    reader = hub.caller("eve")
    with raises(HfHubHTTPError, 403):
        reader.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name)
    contributor = hub.caller("cara")
    with raises(HfHubHTTPError, 403):
        contributor.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=name)
    done = contributor.upload_file(
        path_or_fileobj=weights("proposed"),
        path_in_repo="w.safetensors",
        repo_id=name,
        create_pr=True,
    )
    with raises(HfHubHTTPError, 403):
        contributor.merge_pull_request(name, done.pr_num)
    hub.api.merge_pull_request(name, done.pr_num)
    assert hub.fetch(name, "w.safetensors") == weights("proposed")
