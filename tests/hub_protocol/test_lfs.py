from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from holdfast_hub_protocol import blobs as blobs_module
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.lfs import batch as batch_module
from holdfast_hub_protocol.quotas import Quotas

if TYPE_CHECKING:
    import httpx
    from starlette.testclient import TestClient

    from conftest import World

WEIGHTS = b"weights" * 100_000
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
SIZE = len(WEIGHTS)
BATCH = "/org/name.git/info/lfs/objects/batch"


@pytest.fixture
def world(world: World) -> World:
    """A repository with a card, to upload to."""
    world.publish("org/name", [world.store("README.md", b"a card")])
    return world


def ask(world: World, *objects: tuple[str, int], path: str = BATCH, **more: Any) -> httpx.Response:
    listed = [{"oid": oid, "size": size} for oid, size in objects]
    document = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": listed}
    return world.client.post(path, json=document | more)


def address(world: World, digest: str = DIGEST, size: int = SIZE) -> str:
    """Return the path to upload to; the client sends it no token."""
    answer = ask(world, (digest, size))
    assert answer.status_code == 200, answer.text
    return urlsplit(answer.json()["objects"][0]["actions"]["upload"]["href"]).path


def key(world: World, name: str = "org/name") -> int:
    found = world.metadata.repository(RepositoryId.parse(name))
    assert found is not None
    return found.key


def kept(world: World) -> list[str]:
    """Return the names of all files in the blob folder, but the card's."""
    found = sorted(path.name for path in world.blobs.root.rglob("*") if path.is_file())
    found.remove(hashlib.sha256(b"a card").hexdigest())
    return found


def limit(world: World, **changes: Any) -> TestClient:
    """Serve the world with other quotas or so."""
    from starlette.testclient import TestClient

    from holdfast_hub_protocol.application import create_application

    hub = replace(world.hub, **changes)
    return TestClient(create_application(hub), headers={"Authorization": "Bearer ada"})


def test_an_object_is_uploaded_without_a_token_and_then_is_here(world: World) -> None:
    answer = ask(world, (DIGEST, SIZE))
    document = answer.json()
    assert document["transfer"] == "basic"
    assert "chunk_size" not in json.dumps(document)
    (action,) = document["objects"]
    done = world.anonymous().put(
        urlsplit(action["actions"]["upload"]["href"]).path, content=WEIGHTS
    )
    assert done.status_code == 200, done.text
    assert world.blobs.path(DIGEST).read_bytes() == WEIGHTS
    verify = urlsplit(action["actions"]["verify"]["href"]).path
    assert world.client.post(verify, json={"oid": DIGEST, "size": SIZE}).status_code == 200
    assert world.client.post(verify, json={"oid": DIGEST, "size": 1}).status_code == 404
    assert ask(world, (DIGEST, SIZE)).json()["objects"] == [{"oid": DIGEST, "size": SIZE}]
    told = [event for event in world.people.events if event.operation == "lfs-upload"]
    assert [(event.caller.name, event.status) for event in told] == [("ada", 200)]
    assert told[0].details["sha256"] == DIGEST


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (WEIGHTS[:-1], 400, "announced"),
        (WEIGHTS + b"x", 400, "announced"),
        (b"", 400, "announced"),
        (WEIGHTS[:-1] + b"x", 400, "SHA-256"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_not_as_announced_is_refused_and_not_kept(
    world: World, content: bytes, status: int, words: str, *, chunked: bool
) -> None:
    body: Any = iter([content[:1000], content[1000:]]) if chunked else content
    done = world.anonymous().put(address(world), content=body)
    assert done.status_code == status
    if words == "SHA-256" or not chunked:
        assert words in done.headers["X-Error-Message"]
    assert kept(world) == []
    assert ask(world, (DIGEST, SIZE)).json()["objects"][0]["actions"]


def test_what_another_repository_holds_is_not_here_for_who_may_not_read_it(world: World) -> None:
    file = world.store("w", WEIGHTS, lfs=True)
    world.publish("secret/model", [file])
    assert ask(world, (DIGEST, SIZE)).json()["objects"][0]["actions"]
    world.publish("org/other", [file])
    assert "actions" not in ask(world, (DIGEST, SIZE)).json()["objects"][0]
    assert world.hub.staging.staged_here(key(world), DIGEST, SIZE), "gc must leave it alone"


def test_one_who_may_not_write_gets_no_address(world: World) -> None:
    document = {"operation": "upload", "objects": []}
    bob = {"Authorization": "Bearer bob"}
    assert world.client.post(BATCH, json=document, headers=bob).status_code == 404
    assert world.anonymous().post(BATCH, json=document).status_code == 401


def test_addresses_end_with_their_token_their_repository_and_when_changed(world: World) -> None:
    path = address(world)
    changed = path[:-1] + ("A" if path[-1] != "A" else "B")
    refused = world.anonymous().put(changed, content=WEIGHTS)
    assert refused.status_code == 403
    assert "not valid" in refused.headers["X-Error-Message"]
    world.publish("org/other", [world.store("x", b"x")])
    elsewhere = path.replace("/org/name/", "/org/other/")
    assert world.anonymous().put(elsewhere, content=WEIGHTS).status_code == 403
    world.people.revoked = {"t1"}
    assert world.anonymous().put(path, content=WEIGHTS).status_code == 401
    world.people.revoked = set()
    assert world.anonymous().put(path, content=WEIGHTS).status_code == 200


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"operation": "download", "objects": []},
        {"operation": "upload"},
        {"operation": "upload", "objects": {}},
        {"operation": "upload", "objects": [1]},
        {"operation": "upload", "objects": [{"oid": DIGEST}]},
        {"operation": "upload", "objects": [{"oid": DIGEST, "size": True}]},
        {"operation": "upload", "objects": [{"oid": DIGEST, "size": -1}]},
        {"operation": "upload", "objects": [{"oid": DIGEST, "size": 1 << 60}]},
        {"operation": "upload", "objects": [{"oid": DIGEST.upper(), "size": 1}]},
        {"operation": "upload", "objects": [{"oid": "../../etc/passwd", "size": 1}]},
        {"operation": "upload", "objects": [], "hash_algo": "md5"},
        {
            "operation": "upload",
            "objects": [{"oid": DIGEST, "size": 1}, {"oid": DIGEST, "size": 2}],
        },
        {"operation": "upload", "objects": [{"oid": DIGEST, "size": 1}] * 1001},
    ],
)
def test_malformed_batches_are_refused(world: World, document: Any) -> None:
    answer = world.client.post(BATCH, json=document)
    assert answer.status_code == 400
    assert answer.headers["X-Error-Code"] == "BadRequest"


def test_a_full_quota_is_told_before_anything_is_sent(world: World) -> None:
    client = limit(world, quotas=Quotas(default=SIZE + 5))
    listed = [{"oid": DIGEST, "size": SIZE}]
    answer = client.post(BATCH, json={"operation": "upload", "objects": listed})
    assert answer.status_code == 403
    assert "quota of org exceeded" in answer.headers["X-Error-Message"]
    client = limit(world, quotas=Quotas(default=SIZE + 6))  # the card has 6 bytes
    assert client.post(BATCH, json={"operation": "upload", "objects": listed}).status_code == 200


def test_a_disk_without_room_is_told_before_anything_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.blobs, "free_bytes", lambda: 100)
    answer = ask(world, (DIGEST, SIZE))
    assert answer.status_code == 507
    assert "100 bytes left" in answer.headers["X-Error-Message"]


def test_a_disk_that_fills_up_is_told_and_nothing_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = address(world)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(blobs_module.os, "fsync", full)
    done = world.anonymous().put(path, content=WEIGHTS)
    assert done.status_code == 507
    assert "disk is full" in done.headers["X-Error-Message"]
    monkeypatch.undo()
    assert kept(world) == []


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let uploads come in parts of 300,000 bytes: three for the weights."""
    monkeypatch.setattr(batch_module, "IN_PARTS_FROM", SIZE)
    monkeypatch.setattr(batch_module, "_part_size", lambda size: 300_000 if size >= SIZE else 0)
    return 300_000


def parts_of(world: World) -> tuple[str, dict[int, str], int]:
    upload = ask(world, (DIGEST, SIZE)).json()["objects"][0]["actions"]["upload"]
    header = upload["header"]
    size = int(header.pop("chunk_size"))
    paths = {int(number): urlsplit(url).path for number, url in header.items()}
    return urlsplit(upload["href"]).path, paths, size


def send(world: World, number: int, path: str, size: int, content: bytes = WEIGHTS) -> str:
    done = world.anonymous().put(path, content=content[(number - 1) * size : number * size])
    assert done.status_code == 200, done.text
    return str(done.headers["ETag"])


def finish(world: World, href: str, etags: dict[int, str], oid: str = DIGEST) -> httpx.Response:
    listed = [{"partNumber": number, "etag": etag} for number, etag in etags.items()]
    return world.anonymous().post(href, json={"oid": oid, "parts": listed})


def test_parts_in_any_order_become_one_object(world: World, in_parts: int) -> None:
    href, paths, size = parts_of(world)
    assert (len(paths), size) == (3, in_parts)
    etags = {number: send(world, number, paths[number], size) for number in (3, 1, 2)}
    done = finish(world, href, etags)
    assert done.status_code == 200, done.text
    assert world.blobs.path(DIGEST).read_bytes() == WEIGHTS
    assert kept(world) == [DIGEST]
    assert finish(world, href, etags).status_code == 200, "the answer may have been lost"
    assert "actions" not in ask(world, (DIGEST, SIZE)).json()["objects"][0]


@pytest.mark.usefixtures("in_parts")
def test_parts_that_came_are_there_for_the_next_try(world: World) -> None:
    _, paths, size = parts_of(world)
    etags = {1: send(world, 1, paths[1], size)}
    href, paths, size = parts_of(world)
    assert world.anonymous().head(paths[1]).headers["ETag"] == etags[1]
    assert world.anonymous().head(paths[2]).status_code == 404
    refused = finish(world, href, etags)
    assert refused.status_code == 400
    assert "2 parts are missing" in refused.headers["X-Error-Message"]
    etags |= {number: send(world, number, paths[number], size) for number in (2, 3)}
    assert finish(world, href, etags).status_code == 200


@pytest.mark.usefixtures("in_parts")
def test_wrong_parts_are_refused(world: World) -> None:
    href, paths, size = parts_of(world)
    for content in (WEIGHTS[: size - 1], WEIGHTS[: size + 1]):
        assert world.anonymous().put(paths[1], content=content).status_code == 400
        chunked = world.anonymous().put(paths[1], content=iter([content]))
        assert chunked.status_code == 400
    assert world.anonymous().head(paths[1]).status_code == 404
    assert world.anonymous().put(f"{href}/4", content=b"x").status_code == 404
    assert world.anonymous().put(f"{href}/0", content=b"x").status_code == 404
    assert world.anonymous().put(href, content=WEIGHTS).status_code == 400
    etags = {number: send(world, number, paths[number], size) for number in (1, 2, 3)}
    assert finish(world, href, etags | {2: etags[1]}).status_code == 400
    assert finish(world, href, etags, oid="0" * 64).status_code == 400
    for parts in (None, [None], [{"partNumber": "1", "etag": "x"}], [{"partNumber": 1}]):
        answer = world.anonymous().post(href, json={"oid": DIGEST, "parts": parts})
        assert answer.status_code == 400
    assert finish(world, href, etags).status_code == 200


@pytest.mark.usefixtures("in_parts")
def test_parts_that_are_not_the_object_are_all_forgotten(world: World) -> None:
    href, paths, size = parts_of(world)
    other = b"x" + WEIGHTS[1:]
    etags = {number: send(world, number, paths[number], size, other) for number in (1, 2, 3)}
    done = finish(world, href, etags)
    assert done.status_code == 400
    assert "SHA-256" in done.headers["X-Error-Message"]
    assert kept(world) == []
    assert world.anonymous().head(paths[2]).status_code == 404


def test_the_parts_of_very_large_objects_are_not_too_many() -> None:
    for size in (4 << 30, 50_000_000_000, 1 << 50):
        part = batch_module._part_size(size)
        assert part >= 256 << 20
        assert part % (1 << 20) == 0
        assert -(-size // part) <= batch_module.MAX_PARTS
    assert batch_module._part_size((4 << 30) - 1) == 0


def test_a_commit_for_which_there_is_no_room_is_told_like_an_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(blobs_module.os, "fsync", full)
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {"key": "file", "value": {"path": "a", "content": "YQ==", "encoding": "base64"}},
    ]
    body = "\n".join(map(json.dumps, lines))
    done = world.client.post("/api/models/org/name/commit/main", content=body)
    assert done.status_code == 507
    assert "disk is full" in done.headers["X-Error-Message"]


def test_a_repository_or_a_blob_that_goes_while_the_upload_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = address(world)
    staging = type(world.hub.staging)
    real = staging.stage_all

    def collected(*_: object) -> list[str]:
        return []

    monkeypatch.setattr(staging, "stage_all", collected)
    assert world.anonymous().put(path, content=WEIGHTS).status_code == 503

    def deleted(self: Any, _: int, sizes: dict[str, int]) -> list[str]:
        return real(self, 999, sizes)

    monkeypatch.setattr(staging, "stage_all", deleted)
    gone = world.anonymous().put(path, content=WEIGHTS)
    assert gone.status_code == 404
    assert gone.headers["X-Error-Code"] == "RepoNotFound"
