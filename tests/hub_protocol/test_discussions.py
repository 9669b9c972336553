"""Discussions: who may say what, and the exact words and codes of refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from crowd_parts import Crowded, crowded

from holdfast_hub_protocol.access import UnavailableError, Verb
from holdfast_hub_protocol.discussions.routes import MAX_EDITS, MAX_TEXT, PAGE

if TYPE_CHECKING:
    from conftest import World

BASE = "/api/models/org/name/discussions"
LIKE = "/api/models/org/name/like"


@pytest.fixture
def hub(world: World) -> Crowded:
    world.publish("org/name", [world.store("README.md", b"one\n")])
    return crowded(
        world, reader=Verb.READ, ann=Verb.CONTRIBUTE, ben=Verb.CONTRIBUTE, writer=Verb.WRITE
    )


def opened(hub: Crowded, by: str = "ann", **body: object) -> int:
    answer = hub.ask(by, "POST", BASE, **{"title": "A question", "description": "why?", **body})
    assert answer.status_code == 200, answer.text
    num: int = answer.json()["num"]
    return num


def details(hub: Crowded, num: int, by: str = "reader") -> dict[str, Any]:
    answer = hub.ask(by, "GET", f"{BASE}/{num}?diff=1")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_what_is_said_is_there_for_whoever_may_read(hub: Crowded) -> None:
    num = opened(hub, title="  A   question ", description="**why**\n\n<script>")
    found = details(hub, num)
    assert (found["num"], found["title"], found["status"]) == (1, "A question", "open")
    assert found["author"]["name"] == "ann"
    assert found["repo"] == {"name": "org/name", "type": "model"}
    assert found["isPullRequest"] is False
    assert "diff" not in found
    [said] = found["events"]
    assert said["type"] == "comment"
    assert said["data"]["latest"]["raw"] == "**why**\n\n<script>"
    assert said["data"]["latest"]["html"] == "<p>**why**</p>\n<p>&lt;script&gt;</p>"


def test_comments_are_edited_by_their_author_and_hidden_by_who_may_write(hub: Crowded) -> None:
    num = opened(hub)
    said = hub.ask("ben", "POST", f"{BASE}/{num}/comment", comment="first").json()["newMessage"]
    path = f"{BASE}/{num}/comment/{said['id']}"
    for somebody in ("ann", "writer"):
        refused = hub.ask(somebody, "POST", f"{path}/edit", content="mine now")
        assert refused.status_code == 403
        assert refused.headers["x-error-message"] == "Only its author may edit a comment"
    edited = hub.ask("ben", "POST", f"{path}/edit", content="second").json()["updatedComment"]
    assert edited["id"] == said["id"]
    assert edited["data"]["edited"] is True
    assert edited["data"]["latest"]["raw"] == "second"
    assert [each["raw"] for each in edited["data"]["history"]] == ["first"]
    assert details(hub, num)["events"][-1] == edited
    assert hub.ask("ann", "POST", f"{path}/hide").status_code == 403
    hidden = hub.ask("writer", "POST", f"{path}/hide").json()["updatedComment"]["data"]
    assert hidden["hidden"] is True
    assert "first" not in str(hidden)
    assert "second" not in str(hidden)
    again = hub.ask("ben", "POST", f"{path}/edit", content="third")
    assert again.status_code == 400
    assert details(hub, num)["numComments"] == 2


def test_a_comment_is_not_edited_for_ever(hub: Crowded) -> None:
    num = opened(hub)
    path = f"{BASE}/{num}/comment/{details(hub, num)['events'][0]['id']}/edit"
    codes = [
        hub.ask("ann", "POST", path, content=str(count)).status_code
        for count in range(MAX_EDITS + 1)
    ]
    assert codes == [200] * MAX_EDITS + [400]


def test_the_title_and_the_status_are_the_authors_and_the_writers(hub: Crowded) -> None:
    num = opened(hub)
    refused = hub.ask("ben", "POST", f"{BASE}/{num}/title", title="Other")
    assert refused.status_code == 403
    assert "Only ann and who may write" in refused.headers["x-error-message"]
    renamed = hub.ask("ann", "POST", f"{BASE}/{num}/title", title="Other").json()["newTitle"]
    assert renamed["type"] == "title-change"
    assert renamed["data"] == {"from": "A question", "to": "Other"}
    assert hub.ask("ben", "POST", f"{BASE}/{num}/status", status="closed").status_code == 403
    closed = hub.ask("writer", "POST", f"{BASE}/{num}/status", status="closed", comment="done")
    assert closed.json()["newStatus"]["data"] == {"status": "closed"}
    found = details(hub, num)
    assert (found["title"], found["status"]) == ("Other", "closed")
    assert [event["type"] for event in found["events"]] == [
        *("comment", "title-change", "comment", "status-change"),
    ]
    assert hub.ask("ann", "POST", f"{BASE}/{num}/status", status="closed").status_code == 400
    assert hub.ask("ann", "POST", f"{BASE}/{num}/status", status="open").status_code == 200


def test_who_only_reads_says_nothing(hub: Crowded) -> None:
    num = opened(hub)
    for path, body in (
        ("", {"title": "Mine", "description": "x"}),
        (f"/{num}/comment", {"comment": "x"}),
        (f"/{num}/title", {"title": "Mine"}),
        (f"/{num}/status", {"status": "closed"}),
        (f"/{num}/merge", {}),
    ):
        refused = hub.ask("reader", "POST", BASE + path, **body)
        assert refused.status_code == 403, path
        assert refused.headers["x-error-message"]
    assert len(details(hub, num)["events"]) == 1


def test_what_one_may_not_see_has_no_discussions(hub: Crowded) -> None:
    num = opened(hub)
    hub.crowd.hidden = lambda name, _: name == "ben"
    for method, path in (
        ("GET", ""),
        ("GET", f"/{num}"),
        ("POST", ""),
        ("POST", f"/{num}/comment"),
    ):
        hidden = hub.ask("ben", method, BASE + path, title="abc", comment="x")
        absent = hub.ask("ben", method, f"/api/models/org/absent/discussions{path}")
        assert hidden.status_code == absent.status_code == 404
        assert hidden.headers["x-error-code"] == "RepoNotFound"
        assert hidden.content == absent.content


def test_pages_and_filters(hub: Crowded) -> None:
    for number in range(PAGE + 5):
        opened(hub, by="ann" if number % 2 else "ben", pullRequest=number == 3)
    hub.ask("writer", "POST", f"{BASE}/7/status", status="closed")

    def listed(query: str = "") -> tuple[int, list[int]]:
        document = hub.ask("reader", "GET", f"{BASE}?{query}").json()
        return document["count"], [each["num"] for each in document["discussions"]]

    count, first = listed()
    assert (count, len(first), first[0]) == (PAGE + 5, PAGE, PAGE + 5)
    assert listed("p=1") == (PAGE + 5, [5, 4, 3, 2, 1])
    assert listed("p=2") == (PAGE + 5, [])
    assert listed("type=pull_request") == (1, [4])
    assert listed("type=discussion&status=closed") == (1, [7])
    assert listed("status=closed") == (1, [7])
    assert listed("status=open&author=ann")[0] == (PAGE + 5) // 2
    assert 4 in listed("status=open&p=1")[1], "a draft is open"
    assert listed("author=nobody") == (0, [])
    assert listed("status=all&type=all")[0] == PAGE + 5
    for query in ("p=-1", "p=x", "p=99999999999", "type=x", "status=merged"):
        assert hub.ask("reader", "GET", f"{BASE}?{query}").status_code == 400, query


@pytest.mark.parametrize("num", ["0", "-1", "x", "99", "1e3", "99999999999999999999", "%ff", "1/x"])
def test_there_are_no_odd_numbers(hub: Crowded, num: str) -> None:
    opened(hub)
    assert hub.ask("reader", "GET", f"{BASE}/{num}").status_code == 404
    assert hub.ask("ann", "POST", f"{BASE}/{num}/comment", comment="x").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"title": "ab"},
        {"title": "a" * 201},
        {"title": None},
        {"title": 5},
        {"title": ["x"]},
        {"title": "a\0b"},
        {"description": "a\0b"},
        {"description": "x" * (MAX_TEXT + 1)},
        {"description": {}},
    ],
)
def test_odd_bodies_are_refused(hub: Crowded, body: dict[str, object]) -> None:
    answer = hub.ask("ann", "POST", BASE, **{"title": "A title", "description": "x", **body})
    assert answer.status_code == 400, answer.text
    assert hub.ask("reader", "GET", BASE).json()["count"] == 0


def test_bodies_that_are_no_objects(hub: Crowded) -> None:
    num = opened(hub)
    headers = {"Authorization": "Bearer writer"}
    for content in (b"", b"[]", b"{", b"\xff", b'"x"', b'{"title": "\\ud800abc"}'):
        for path in (BASE, f"{BASE}/{num}/comment", f"{BASE}/{num}/status"):
            answer = hub.client.post(path, headers=headers, content=content)
            assert answer.status_code == 400, (path, content)
    for key in ("", "x", "0" * 24):
        answer = hub.ask("ann", "POST", f"{BASE}/{num}/comment/{key}/edit", content="x")
        assert answer.status_code == 404


def test_the_record_says_which_discussion(hub: Crowded) -> None:
    num = opened(hub)
    hub.crowd.people.events.clear()
    hub.ask("ben", "POST", f"{BASE}/{num}/comment", comment="x")
    before, answered = hub.crowd.people.events
    assert (before.status, answered.status) == (0, 200)
    for event in (before, answered):
        assert (event.operation, event.verb) == ("discuss", Verb.CONTRIBUTE)
        assert event.details["discussion"] == num


def test_nobody_sees_what_is_not_on_the_record(hub: Crowded) -> None:
    hub.crowd.people.failure = UnavailableError("the disk is full")
    assert hub.ask("ann", "POST", BASE, title="Hidden", description="x").status_code == 503
    assert hub.ask("ann", "POST", LIKE).status_code == 503
    hub.crowd.people.failure = None
    assert hub.ask("reader", "GET", BASE).json()["count"] == 0
    assert hub.ask("reader", "GET", "/api/models/org/name").json()["likes"] == 0
