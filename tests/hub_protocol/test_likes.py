"""Likes and downloads: what is counted, by whom, and that counting fails no answer."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from crowd_parts import Crowded, crowded

from holdfast_hub_protocol import downloads, popularity, schema
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.tree import encode_cursor

if TYPE_CHECKING:
    from conftest import World

MODEL = "/api/models/org/name"


@pytest.fixture
def hub(world: World) -> Crowded:
    world.publish(
        "org/name",
        [world.store("config.json", b'{"model_type": "x"}'), world.store("w.safetensors", b"w")],
    )
    world.publish("org/plain", [world.store("x.gguf", b"x"), world.store("notes.txt", b"x")])
    return crowded(world, ann=Verb.DISCOVER, ben=Verb.READ, cat=Verb.READ)


def count(hub: Crowded, key: str = "likes", path: str = MODEL) -> Any:
    return hub.ask("ann", "GET", f"{path}?expand={key}").json()[key]


def test_likes_are_counted_once_for_each_who_likes(hub: Crowded) -> None:
    for name in ("ann", "ben", "ann"):
        assert hub.ask(name, "POST", f"{MODEL}/like").status_code == 200
    assert count(hub) == 2
    assert count(hub, "trendingScore") == 2 * popularity.LIKE_WEIGHT
    likers = hub.ask("ann", "GET", f"{MODEL}/likers").json()
    assert [each["user"] for each in likers] == ["ann", "ben"]
    for _ in range(2):
        assert hub.ask("ann", "DELETE", f"{MODEL}/like").status_code == 200
    assert (count(hub), count(hub, "trendingScore")) == (1, popularity.LIKE_WEIGHT)
    assert hub.ask("ann", "GET", "/api/models?sort=likes").json()[0]["id"] == "org/name"


def test_pages_of_those_who_like(world: World) -> None:
    world.publish("org/name", [world.store("x", b"x")])
    people = [f"person-{number}" for number in range(7)]
    hub = crowded(world, ann=Verb.READ, **dict.fromkeys(people, Verb.READ))
    for name in people:
        hub.ask(name, "POST", f"{MODEL}/like")
    found, path = [], f"{MODEL}/likers?limit=3"
    while path:
        answer = hub.ask("ann", "GET", path)
        found += [each["user"] for each in answer.json()]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert found == people


def test_what_somebody_likes_is_shown_as_far_as_one_may_see_it(hub: Crowded) -> None:
    for name in ("org/name", "org/plain"):
        hub.ask("ben", "POST", f"/api/models/{name}/like")

    def liked(by: str, of: str = "ben", query: str = "") -> list[str]:
        answer = hub.ask(by, "GET", f"/api/users/{of}/likes{query}")
        assert answer.status_code == 200, answer.text
        found = [each["repo"]["name"] for each in answer.json()]
        if "next" in answer.links:
            next_page = "?" + answer.links["next"]["url"].partition("?")[2]
            found += liked(by, of, next_page)
        return found

    assert liked("ann") == liked("ann", query="?limit=1") == ["org/plain", "org/name"]
    hub.crowd.hidden = lambda name, each: name == "ann" and each.id.name == "plain"
    assert liked("ann") == ["org/name"]
    assert liked("ben") == ["org/plain", "org/name"]
    assert liked("ann", of="nobody") == []
    for text in ("x", "0001-01-01T00:00:00+14:00"):
        path = f"/api/users/ben/likes?cursor={encode_cursor(text)}"
        assert hub.ask("ann", "GET", path).status_code == 400
    hidden = hub.ask("ann", "POST", "/api/models/org/plain/like")
    assert (hidden.status_code, hidden.headers["x-error-code"]) == (404, "RepoNotFound")


def get(hub: Crowded, name: str, file: str, path: str = "/org/name", method: str = "GET") -> int:
    headers = {"Authorization": f"Bearer {name}"}
    return hub.client.request(method, f"{path}/resolve/main/{file}", headers=headers).status_code


def test_a_download_is_the_file_that_stands_for_a_repository(hub: Crowded) -> None:
    assert get(hub, "ben", "config.json", method="HEAD") == 200
    assert get(hub, "ann", "config.json") == 403
    hub.hub.downloads.flush()
    assert count(hub, "downloads") == 0
    for _ in range(3):
        assert get(hub, "ben", "config.json") == 200
        assert get(hub, "ben", "w.safetensors") == 200
    assert get(hub, "cat", "w.safetensors") == 200
    hub.hub.downloads.flush()
    assert count(hub, "downloads") == 1, "one caller, one time; the configuration stands for it"
    get(hub, "cat", "config.json")
    for file in ("notes.txt", "x.gguf"):
        get(hub, "ben", file, "/org/plain")
    hub.hub.downloads.flush()
    assert count(hub, "downloads") == count(hub, "downloadsAllTime") == 2
    assert count(hub, "downloads", "/api/models/org/plain") == 1
    found = hub.ask("ann", "GET", "/api/models?sort=downloads").json()
    assert [item["id"] for item in found] == ["org/name", "org/plain"]


def test_the_same_caller_later_is_another_download(world: World) -> None:
    world.publish("org/name", [world.store("config.json", b"{}")])
    repository = world.metadata.repository(RepositoryId.parse("org/name"))
    caller = world.people.authenticate("ada")
    assert repository is not None
    assert caller is not None
    commit = world.metadata.commit(repository, "main")
    assert commit is not None
    entry = world.metadata.entry(commit, "config.json")
    assert entry is not None
    moments = [0.0, 299.0, 301.0, 602.0]
    counter = downloads.DownloadCounter(world.metadata.engine, clock=iter(moments).__next__)
    for _ in moments:
        counter.note(caller, repository, commit, entry)
    counter.flush()
    found = world.metadata.repository(RepositoryId.parse("org/name"))
    assert found is not None
    assert found.downloads == 3


def test_old_downloads_are_forgotten_on_a_new_day(hub: Crowded) -> None:
    get(hub, "ben", "config.json")
    hub.ask("ben", "POST", f"{MODEL}/like")
    hub.hub.downloads.flush()
    engine = hub.hub.metadata.engine
    for days, downloaded, score in ((8, 1, 0), (31, 0, 0)):
        with engine.begin() as connection:
            connection.execute(
                popularity.downloads.update().values(day=popularity.today() - timedelta(days=days))
            )
            connection.execute(
                popularity.likes.update().values(
                    created_at=datetime.now(UTC) - timedelta(days=days)
                )
            )
        downloads.DownloadCounter(engine).flush()
        assert (count(hub, "downloads"), count(hub, "trendingScore")) == (downloaded, score)
    assert (count(hub, "downloadsAllTime"), count(hub)) == (1, 1)


def test_what_cannot_be_written_now_is_written_later(
    hub: Crowded, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(downloads, "_add", _broken)
        assert get(hub, "ben", "config.json") == 200
        hub.hub.downloads.flush()
    assert count(hub, "downloads") == 0
    hub.hub.downloads.flush()
    assert count(hub, "downloads") == 1


def _broken(*_: object) -> None:
    raise sa.exc.OperationalError("UPDATE", {}, Exception("the disk is full"))


def test_a_repository_that_is_gone_is_not_counted(hub: Crowded) -> None:
    get(hub, "ben", "config.json")
    with hub.hub.metadata.engine.begin() as connection:
        connection.execute(schema.refs.delete())
        connection.execute(sa.text("DELETE FROM holdings"))
        for table in (schema.entries, schema.commits, schema.snapshots, schema.repositories):
            connection.execute(table.delete())
    hub.hub.downloads.flush()
    with hub.hub.metadata.engine.connect() as connection:
        assert connection.execute(sa.select(popularity.downloads)).all() == []


def test_the_thread_writes_and_ends(hub: Crowded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "FLUSH_SECONDS", 0.02)
    written = threading.Event()
    counter = downloads.DownloadCounter(hub.hub.metadata.engine)
    monkeypatch.setattr(counter, "flush", written.set)
    counter.start()
    assert written.wait(5)
    counter.close()
    assert not counter._thread.is_alive()
