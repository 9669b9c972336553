from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from holdfast_hub_protocol import commits, schema
from holdfast_hub_protocol.access import Verb, Verdict
from holdfast_hub_protocol.admission import DisabledError
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.operations import AddFile, AddLfsFile
from holdfast_model_registry.check_trees import check_commits, check_trees

if TYPE_CHECKING:
    from conftest import World
    from holdfast_hub_protocol.records import Commit, Repository

LIST = "/api/models/org/name/lfs-files"
BATCH = f"{LIST}/batch"


class Ada:
    name, kind, teams, roles, token_id = "ada", "user", ("org",), {}, "t1"
    email = "ada@users.invalid"


def repository(world: World, name: str = "org/name") -> Repository:
    found = world.metadata.repository(RepositoryId.parse(name))
    assert found is not None
    return found


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit(world: World, ref: str = "refs/heads/main", **files: bytes) -> Commit:
    """Commit files named like `a_bin`; those that end so are large."""
    operations: list[Any] = []
    for name, content in files.items():
        path = name.replace("__", "/").replace("_", ".")
        if name.endswith("_bin"):
            stored = world.store(path, content, lfs=True)
            world.hub.staging.stage(repository(world).key, stored.sha256, stored.size)
            operations.append(AddLfsFile(path, stored.sha256, stored.size))
        else:
            operations.append(AddFile(path, content))
    return commits.make_commit(
        world.hub, Ada(), repository(world), ref, operations, title=f"Add {', '.join(files)}"
    )


def branch(world: World, ref: str) -> None:
    """Make a reference to where main is."""
    refs = schema.refs
    with world.metadata.engine.begin() as connection:
        main = sa.select(refs.c.repository_id, sa.literal(ref), refs.c.commit_id)
        here = (refs.c.name == "refs/heads/main") & (refs.c.repository_id == repository(world).key)
        connection.execute(refs.insert().from_select(list(refs.c.keys()), main.where(here)))


@pytest.fixture
def world(world: World) -> World:
    """Main has a small commit, then one with two large files, then one without new ones."""
    world.client.post("/api/repos/create", json={"name": "name", "organization": "org"})
    commit(world, a_txt=b"first")
    commit(world, deep__secret_bin=b"secret", kept_bin=b"kept")
    commit(world, a_txt=b"third", deep__b_txt=b"b")
    return world


def delete(world: World, *contents: bytes, **more: Any) -> Any:
    digests = [digest_of(content) for content in contents]
    return world.client.post(BATCH, json={"deletions": {"sha": digests, **more}})


def names(world: World, revision: str = "main") -> list[str]:
    found = world.client.get(f"/api/models/org/name/tree/{revision}?recursive=1").json()
    return [each["path"] for each in found if each["type"] == "file"]


def history(world: World, revision: str = "main") -> list[str]:
    found = world.client.get(f"/api/models/org/name/commits/{revision}").json()
    return [each["id"] for each in found]


def problems(world: World) -> list[Any]:
    with world.metadata.engine.connect() as connection:
        return [
            *check_trees(connection, Counter()),
            *check_commits(connection, Counter()),
        ]


def test_large_files_are_listed_once_each_with_their_first_name(world: World) -> None:
    commit(world, copy_bin=b"kept")
    commit(world, "refs/heads/side", side_bin=b"side")
    items = world.client.get(LIST).json()
    assert {(each["filename"], each["size"], each["ref"]) for each in items} == {
        ("deep/secret.bin", 6, "main"),
        ("kept.bin", 4, "main"),
        ("side.bin", 4, "side"),
    }
    assert all(each["oid"] == each["fileOid"] and each["pushedAt"] for each in items)
    first = world.client.get(f"{LIST}?limit=2")
    second = world.client.get(first.links["next"]["url"])
    assert [*first.json(), *second.json()] == items
    assert "next" not in second.links


def test_a_deleted_file_is_in_no_commit_and_other_history_stays(world: World) -> None:
    before = history(world)
    branch(world, "refs/heads/side")
    commit(world, "refs/heads/side", c_txt=b"c")
    done = delete(world, b"secret", rewriteHistory=True)
    assert done.status_code == 200, done.text
    assert done.json() == {"rewrittenCommits": 3}
    assert ".gitattributes" in names(world)
    assert "deep/secret.bin" not in names(world)
    assert "deep/secret.bin" not in names(world, "side")
    assert {"a.txt", "kept.bin", "deep/b.txt"} <= set(names(world))
    after = history(world)
    assert len(after) == len(before)
    assert after[2:] == before[2:], "what came before the file is as it was"
    assert not set(after[:2]) & set(before)
    assert history(world, "side")[1:] == after
    for oid in before[:2]:
        assert world.client.get(f"/api/models/org/name/tree/{oid}").status_code == 404
    assert world.client.get("/org/name/resolve/main/deep/secret.bin").status_code == 404
    assert world.client.get("/org/name/resolve/main/a.txt").content == b"third"
    assert {each["filename"] for each in world.client.get(LIST).json()} == {"kept.bin"}
    assert problems(world) == []
    expanded = world.client.get("/api/models/org/name/tree/main?expand=1&recursive=1").json()
    assert {each["lastCommit"]["id"] for each in expanded} <= set(after)
    assert not world.hub.staging.usable(Ada(), repository(world), digest_of(b"secret"), 6)


def test_authors_dates_and_words_stay(world: World) -> None:
    def told() -> list[Any]:
        found = world.client.get("/api/models/org/name/commits/main").json()
        return [(each["title"], each["date"], each["authors"]) for each in found]

    before = told()
    delete(world, b"secret")
    assert told() == before


def test_the_only_files_of_a_commit(world: World) -> None:
    delete(world, b"secret", b"kept")
    assert world.client.get(LIST).json() == []
    assert problems(world) == []


def test_content_that_a_regular_file_has_too_stays_for_that(world: World) -> None:
    commit(world, same_txt=b"kept")
    assert delete(world, b"kept").status_code == 200
    assert world.client.get("/org/name/resolve/main/same.txt").content == b"kept"
    with world.metadata.engine.connect() as connection:
        held = sa.select(holdings.c.sha256).where(holdings.c.sha256 == digest_of(b"kept"))
        assert connection.execute(held).scalar() is not None


def test_imported_commits_without_git_objects_are_made_anew_too(world: World) -> None:
    world.publish("org/imported", [world.store("w.bin", b"w", lfs=True), world.store("a", b"a")])
    path = "/api/models/org/imported/lfs-files/batch"
    done = world.client.post(path, json={"deletions": {"sha": [digest_of(b"w")]}})
    assert done.status_code == 200
    assert problems(world) == []
    assert world.client.get("/org/imported/resolve/main/a").content == b"a"


def test_what_is_not_there_deletes_nothing(world: World) -> None:
    before = history(world)
    assert delete(world, b"never seen").json() == {"rewrittenCommits": 0}
    assert delete(world).json() == {"rewrittenCommits": 0}
    assert history(world) == before


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"deletions": []},
        {"deletions": {"sha": "x"}},
        {"deletions": {"sha": ["x"]}},
        {"deletions": {"sha": [1]}},
        {"deletions": {"sha": ["a" * 64] * 1001}},
        {"deletions": {"sha": ["a" * 64], "rewriteHistory": False}},
    ],
)
def test_malformed_deletions_are_refused(world: World, document: Any) -> None:
    assert world.client.post(BATCH, json=document).status_code == 400


def test_only_admins_delete(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def may(_: object, verb: Verb, *__: object) -> Verdict:
        return Verdict(verb is not Verb.ADMIN)

    monkeypatch.setattr(world.people, "may", may)
    assert delete(world, b"secret").status_code == 403
    assert "deep/secret.bin" in names(world)


def test_a_file_is_lent_to_another_repository(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quarantined(*_: object) -> None:
        raise DisabledError("quarantined")

    world.client.post("/api/repos/create", json={"name": "other", "organization": "else"})
    files = [{"sha256": digest_of(each), "filename": "x"} for each in (b"secret", b"never")]
    target = {"type": "model", "name": "else/other"}
    done = world.client.post(f"{LIST}/duplicate", json={"target": target, "files": files})
    assert done.status_code == 200, done.text
    assert [each["sha256"] for each in done.json()["duplicated"]] == [digest_of(b"secret")]
    assert [each["sha256"] for each in done.json()["failed"]] == [digest_of(b"never")]
    stranger = replace(repository(world, "else/other"))
    assert world.hub.staging.usable(Ada(), stranger, digest_of(b"secret"), 6)
    monkeypatch.setattr(type(world.hub.admission), "check_fetch", quarantined)
    done = world.client.post(f"{LIST}/duplicate", json={"target": target, "files": files})
    assert done.status_code == 403
    monkeypatch.undo()
    absent = {"type": "model", "name": "else/absent"}
    done = world.client.post(f"{LIST}/duplicate", json={"target": absent, "files": files})
    assert done.status_code == 404
    for document in ({}, {"target": 1, "files": []}, {"target": target, "files": [1]}):
        assert world.client.post(f"{LIST}/duplicate", json=document).status_code == 400
