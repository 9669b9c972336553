"""Repositories made, described, moved and deleted, as the stock client asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import World

BOB = {"Authorization": "Bearer bob"}


def create(world: World, name: str, **more: Any) -> Any:
    organization, _, rest = name.rpartition("/")
    body = {"name": rest, "organization": organization or None, **more}
    return world.client.post("/api/repos/create", json=body)


def test_a_new_repository_has_a_first_commit(world: World) -> None:
    made = create(world, "Org/Name")
    assert made.status_code == 200, made.text
    assert made.json()["url"] == "http://testserver/Org/Name"
    info = world.client.get("/api/models/Org/Name").json()
    assert (info["id"], info["private"], info["gated"]) == ("Org/Name", True, False)
    assert [file["rfilename"] for file in info["siblings"]] == [".gitattributes"]
    commits = world.client.get("/api/models/Org/Name/commits/main").json()
    assert [(commit["title"], commit["id"]) for commit in commits] == [
        ("initial commit", info["sha"])
    ]
    assert [(name, caller) for _, name, caller in world.people.made] == [("Org/Name", "ada")]


def test_without_an_organization_it_is_ones_own(world: World) -> None:
    assert create(world, "name").json()["id"] == "ada/name"
    dataset = create(world, "name", type="dataset", visibility="public")
    assert dataset.json()["url"] == "http://testserver/datasets/ada/name"
    assert world.client.get("/api/datasets/ada/name").json()["private"] is False


def test_names_differ_by_more_than_case(world: World) -> None:
    create(world, "Org/Name")
    again = create(world, "org/NAME")
    assert again.status_code == 409
    assert again.json()["url"] == "http://testserver/Org/Name"
    assert world.client.get("/api/models/oRG/nAME").json()["id"] == "Org/Name"
    assert world.client.head("/ORG/NAME/resolve/main/.gitattributes").status_code == 200


def test_only_who_says_public_makes_a_public_repository(world: World) -> None:
    """Older clients send `private: false` of themselves, and would show it to the whole site."""
    for name, asked, private in (
        ("unasked", {"private": False}, True),
        ("asked", {"visibility": "public"}, False),
        ("both", {"private": False, "visibility": "private"}, True),
    ):
        assert create(world, name, **asked).status_code == 200
        assert world.client.get(f"/api/models/ada/{name}").json()["private"] is private
    world.client.put("/api/models/ada/unasked/settings", json={"private": False})
    assert world.client.get("/api/models/ada/unasked").json()["private"] is False


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": 1},
        {"name": "x", "organization": 1},
        {"name": "a/../b"},
        {"name": "x", "type": "space"},
        {"name": "x", "type": ["model"]},
        {"name": "x", "visibility": "secret"},
        {"name": "x", "private": "yes"},
        {"name": "x", "gated": "sometimes"},
        {"name": "x" * 200},
        {"name": "x.git"},
        {"name": "x", "organization": "API"},
    ],
)
def test_what_cannot_be_made_is_a_bad_request(shared_hub: World, body: dict[str, Any]) -> None:
    answer = shared_hub.client.post("/api/repos/create", json=body)
    assert answer.status_code == 400, answer.text


def test_who_may_not_make_one_is_told(world: World) -> None:
    answer = world.client.post("/api/repos/create", json={"name": "x"}, headers=BOB)
    assert answer.status_code == 403
    assert "bob" in answer.headers["x-error-message"]
    assert [event.repository for event in world.people.events] == ["bob/x"]
    assert not world.people.events[0].verdict.allowed


def test_settings(world: World) -> None:
    create(world, "org/name")
    for gated in ("auto", "manual", False):
        for private in (True, False):
            answer = world.client.put(
                "/api/models/org/name/settings",
                json={"gated": gated, "visibility": "private" if private else "public"},
            )
            assert answer.json() == {"private": private, "gated": gated}
            info = world.client.get("/api/models/org/name").json()
            assert (info["private"], info["gated"]) == (private, gated)
    assert world.client.put("/api/models/org/name/settings", json={}).status_code == 400
    answer = world.client.put("/api/models/org/name/settings", json={"private": False}, headers=BOB)
    assert answer.status_code == 404


def move(world: World, old: str, new: str) -> Any:
    body = {"fromRepo": old, "toRepo": new, "type": "model"}
    return world.client.post("/api/repos/move", json=body)


def test_an_old_name_leads_to_the_new_one(world: World) -> None:
    create(world, "org/old")
    assert move(world, "org/old", "team/new").status_code == 200
    for path in (
        "/api/models/{}",
        "/api/models/{}/tree/main?recursive=true",
        "/{}/resolve/main/.gitattributes",
    ):
        answer = world.client.get(path.format("Org/Old"))
        assert answer.status_code == 307
        assert answer.headers["location"] == path.format("team/new")
        followed = world.client.get(path.format("org/old"), follow_redirects=True)
        assert followed.status_code == 200
        hidden = world.client.get(path.format("org/old"), headers=BOB)
        absent = world.client.get(path.format("org/absent"), headers=BOB)
        assert hidden.status_code == 404
        assert hidden.content == absent.content
        assert "location" not in hidden.headers


def test_an_old_name_can_be_taken(world: World) -> None:
    create(world, "org/old")
    move(world, "org/old", "org/new")
    assert create(world, "org/old").status_code == 200
    assert world.client.get("/api/models/org/old").status_code == 200
    conflict = move(world, "org/new", "ORG/OLD")
    assert conflict.status_code == 409
    assert "A model repository called ORG/OLD already exists" in conflict.text
    assert world.client.get("/api/models/org/new").status_code == 200


def test_there_and_back_again(world: World) -> None:
    create(world, "org/a")
    move(world, "org/a", "org/b")
    move(world, "org/b", "org/a")
    assert world.client.get("/api/models/org/a").status_code == 200
    assert world.client.get("/api/models/org/b").status_code == 307
    assert move(world, "org/a", "org/A").json()["id"] == "org/A"
    assert world.client.get("/api/models/org/a").json()["id"] == "org/A"
    assert move(world, "org/a", "nonsense").status_code == 400
    assert move(world, "org/absent", "org/x").status_code == 404


def test_delete_leaves_nothing(world: World) -> None:
    create(world, "org/name")
    body = {"name": "name", "organization": "org", "type": "model"}
    assert (
        world.client.request("DELETE", "/api/repos/delete", json=body, headers=BOB).status_code
        == 404
    )
    move(world, "org/name", "org/other")
    gone = world.client.request("DELETE", "/api/repos/delete", json=body)
    assert gone.status_code == 404, "an old name deletes nothing"
    body["name"] = "other"
    assert world.client.request("DELETE", "/api/repos/delete", json=body).status_code == 200
    assert world.client.get("/api/models/org/other").status_code == 404
    assert world.client.get("/api/models/org/name").status_code == 404
    missing = world.client.request("DELETE", "/api/repos/delete", json=body)
    assert missing.headers["x-error-code"] == "RepoNotFound"
    assert create(world, "org/other").status_code == 200
