"""Branches, tags and squashed histories, with the words and codes that clients look for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from conftest import World

API = "/api/models/o/n"


@pytest.fixture
def hub(world: World) -> World:
    world.publish("o/n", [world.store("x", b"1")], oid="1" * 40)
    world.publish("o/n", [world.store("x", b"2")], oid="2" * 40, parent="1" * 40)
    return world


def refs(world: World, group: str = "branches") -> dict[str, str]:
    found = world.client.get(f"{API}/refs").json()[group]
    return {ref["name"]: ref["targetCommit"] for ref in found}


def said(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.headers.get("x-error-code")


def test_branches_come_and_go(hub: World) -> None:
    post = hub.client.post
    assert post(f"{API}/branch/a%2Fb", json={}).status_code == 200
    assert post(f"{API}/branch/old", json={"startingPoint": "1" * 40}).status_code == 200
    assert post(f"{API}/branch/short", json={"startingPoint": "1" * 7}).status_code == 200
    assert post(f"{API}/branch/of", json={"startingPoint": "old"}).status_code == 200
    assert post(f"{API}/branch/bodiless").status_code == 200
    one, two = "1" * 40, "2" * 40
    assert refs(hub) == {
        "main": two, "a/b": two, "old": one, "short": one, "of": one, "bodiless": two,
    }  # fmt: skip
    again = post(f"{API}/branch/old", json={})
    assert again.status_code == 409
    assert "Reference refs/heads/old already exists" in again.headers["x-error-message"]
    missing = post(f"{API}/branch/new", json={"startingPoint": "nowhere"})
    assert said(missing) == (404, "RevisionNotFound")
    assert hub.client.delete(f"{API}/branch/a%2Fb").status_code == 200
    gone = hub.client.delete(f"{API}/branch/a%2Fb")
    assert said(gone) == (404, "RevisionNotFound")
    assert "Invalid rev id" in gone.text
    protected = hub.client.delete(f"{API}/branch/main")
    assert protected.status_code == 403
    assert "Cannot delete refs/heads/main" in protected.text


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "a..b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", ".a"),
        *(
            "a/.b",
            "a.lock",
            "a.",
            "@",
            "a@{b",
            "-a",
            "refs/pr/5",
            "refs/heads/x",
            "f" * 40,
            "x" * 300,
        ),
    ],
)
def test_names_that_git_cannot_hold(shared_hub: World, name: str) -> None:
    branch = shared_hub.client.post(f"{API}/branch/{quote(name, safe='')}", json={})
    assert branch.status_code == 400, branch.text
    assert "Invalid reference for a branch" in branch.text
    tag = shared_hub.client.post(f"{API}/tag/main", json={"tag": name})
    assert tag.status_code == 400


def test_tags_come_and_go(hub: World) -> None:
    post = hub.client.post
    assert post(f"{API}/tag/main", json={"tag": "v2", "message": "hello"}).status_code == 200
    assert post(f"{API}/tag/{'1' * 40}", json={"tag": "v1"}).status_code == 200
    assert refs(hub, "tags") == {"v1": "1" * 40, "v2": "2" * 40}
    assert post(f"{API}/tag/main", json={"tag": "v1"}).status_code == 409
    assert said(post(f"{API}/tag/nowhere", json={"tag": "v9"})) == (404, "RevisionNotFound")
    assert post(f"{API}/tag/main", json={}).status_code == 400
    assert post(f"{API}/branch/v1", json={}).status_code == 200, "a branch may have a tag's name"
    assert hub.client.delete(f"{API}/tag/v1").status_code == 200
    assert said(hub.client.delete(f"{API}/tag/v1")) == (404, "RevisionNotFound")
    assert said(hub.client.delete(f"{API}/tag/main")) == (404, "RevisionNotFound")


def test_who_may_not_write_makes_none(hub: World) -> None:
    bob = {"Authorization": "Bearer bob"}
    answer = hub.client.post(f"{API}/branch/x", json={}, headers=bob)
    assert said(answer) == (404, "RepoNotFound")
    assert set(refs(hub)) == {"main"}


def test_a_squashed_branch_has_one_commit_and_all_files(hub: World) -> None:
    hub.client.post(f"{API}/branch/kept", json={})
    answer = hub.client.post(f"{API}/super-squash/main", json={"message": "All of it\n\nat once"})
    assert answer.status_code == 200
    commits = hub.client.get(f"{API}/commits/main").json()
    assert [(commit["title"], commit["message"]) for commit in commits] == [
        ("All of it", "at once")
    ]
    assert commits[0]["id"] == answer.json()["commitOid"]
    tree = hub.client.get(f"{API}/tree/main?expand=true").json()
    assert [(item["path"], item["lastCommit"]["title"]) for item in tree] == [("x", "All of it")]
    assert hub.client.get("/o/n/resolve/main/x").content == b"2"
    assert len(hub.client.get(f"{API}/commits/kept").json()) == 2
    missing = hub.client.post(f"{API}/super-squash/nowhere", json={})
    assert said(missing) == (404, "RevisionNotFound")


def test_a_pull_request_is_squashed_by_its_whole_name_and_merged(hub: World) -> None:
    pulls = f"{API}/discussions"
    made = hub.client.post(pulls, json={"title": "One", "pullRequest": True}).json()
    ref = f"refs%2Fpr%2F{made['num']}"
    assert len(hub.client.get(f"{API}/commits/{ref}").json()) == 2
    assert hub.client.post(f"{API}/super-squash/{ref}", json={}).status_code == 200
    assert len(hub.client.get(f"{API}/commits/{ref}").json()) == 1
    assert len(hub.client.get(f"{API}/commits/main").json()) == 2
    missing = hub.client.post(f"{API}/super-squash/refs%2Fpr%2F9", json={})
    assert said(missing) == (404, "RevisionNotFound")
