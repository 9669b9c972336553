"""Uploads over HTTP: tokens, xorbs, shards, and who may."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from xet_parts import File, Xorb, shard

from holdfast_hub_protocol.access import Verb, Verdict
from holdfast_hub_protocol.quotas import Quotas
from holdfast_hub_protocol.staging import Staging
from holdfast_hub_protocol.xet import progress, shard_upload, tokens, writing

if TYPE_CHECKING:
    import httpx

    # The fixture's class lives in conftest, which cannot be imported by name.
    World = Any

# test_databases.py goes through the same on both databases.
pytestmark = pytest.mark.parametrize("world", ["sqlite"], indirect=True)

NAME = "org/name"
API = f"/api/models/{NAME}"


def xorb(seed: int = 0, chunks: int = 6) -> Xorb:
    numbers = random.Random(seed)
    return Xorb([numbers.randbytes(numbers.randrange(1, 2000)) for _ in range(chunks)])


@dataclass
class Upload:
    """What a client does with a token to write."""

    world: World
    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def post(self, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        answer: httpx.Response = self.world.client.post(
            self.url + path, content=content, headers={**self.headers, **headers}
        )
        return answer

    def xorb(self, each: Xorb) -> httpx.Response:
        return self.post(f"/v1/xorbs/default/{each.url_hash}", each.stored)

    def lines(self, content: bytes) -> list[dict[str, Any]]:
        answer = self.post("/v2/shards", content)
        assert answer.status_code == 200
        return [json.loads(line) for line in answer.text.splitlines()]


def begin(world: World, name: str = NAME) -> Upload:
    answer = world.client.get(f"/api/models/{name}/xet-write-token/main")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert answer.headers["X-Xet-Cas-Url"] == document["casUrl"]
    assert answer.headers["X-Xet-Access-Token"] == document["accessToken"]
    assert answer.headers["X-Xet-Token-Expiration"] == str(document["exp"])
    assert document["exp"] == pytest.approx(time.time() + tokens.TOKEN_SECONDS, abs=5)
    prefix = f"http://testserver/api/models/{name}/xet/"
    assert document["casUrl"].startswith(prefix)
    return Upload(
        world, document["casUrl"].removeprefix("http://testserver"), document["accessToken"]
    )


@pytest.fixture
def made(world: World) -> World:
    world.publish(NAME, [world.store("README.md", b"hello")])
    world.publish("org/other", [world.store("README.md", b"hello")])
    return world


@pytest.fixture
def upload(made: World) -> Upload:
    return begin(made)


def repository(world: World, name: str = NAME) -> Any:
    from holdfast_hub_protocol.identifiers import RepositoryId

    return world.metadata.repository(RepositoryId.parse(name))


def test_an_upload_becomes_a_staged_blob(made: World, upload: Upload) -> None:
    one = xorb()
    answer = upload.xorb(one)
    assert (answer.status_code, answer.json()) == (200, {"was_inserted": True})
    assert upload.xorb(one).json() == {"was_inserted": False}
    file = File([(one, 0, 6)])
    answer = upload.post("/v1/shards", shard([file], [one]))
    assert (answer.status_code, answer.json()) == (200, {"result": 1})
    assert made.blobs.path(file.digest).read_bytes() == file.content
    caller = made.people.authenticate("ada")
    size = len(file.content)
    assert made.hub.staging.usable(caller, repository(made), file.digest, size)
    assert not made.hub.staging.usable(caller, repository(made, "org/other"), file.digest, size)
    events = [(event.operation, event.status) for event in made.people.events]
    assert events == [
        ("xet-write-token", 200),
        ("xet-xorb", 200),
        ("xet-xorb", 200),
        ("xet-shard", 200),
    ]
    assert made.people.events[-1].details["size"] == size


def test_the_second_version_tells_how_it_ends(made: World, upload: Upload) -> None:
    one = xorb()
    upload.xorb(one)
    file = File([(one, 1, 5)])
    assert upload.lines(shard([file]))[-1] == {"type": "result"}
    assert made.blobs.has(file.digest, len(file.content))
    [end] = upload.lines(shard([File([(one, 1, 5)], sha256="ab" * 32)]))
    assert end["type"] == "error"
    assert not end["retryable"]
    assert "SHA-256" in end["message"]
    assert "run the upload again" in end["message"]


def test_the_second_version_tells_how_far_it_is(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.01)
    real = shard_upload.Builder.build

    def slowly(self: Any, file: Any) -> Any:
        time.sleep(0.2)
        return real(self, file)

    monkeypatch.setattr(shard_upload.Builder, "build", slowly)
    one = xorb()
    upload.xorb(one)
    file = File([(one, 0, 6)])
    *under_way, end = upload.lines(shard([file]))
    assert under_way[0] == {"type": "validating", "verified": 0, "total": len(file.content)}
    assert end == {"type": "result"}


def test_the_unexpected_is_told_without_its_details(
    upload: Upload, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error at /secret/place")

    monkeypatch.setattr(shard_upload.Builder, "build", fail)
    one = xorb()
    upload.xorb(one)
    [end] = upload.lines(shard([File([(one, 0, 6)])]))
    assert end["type"] == "error"
    assert end["retryable"]
    assert "secret" not in json.dumps(end)
    assert "/secret/place" in caplog.text


def test_a_full_disk_is_told_at_once(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    one = xorb()
    with monkeypatch.context() as patch:
        patch.setattr("holdfast_hub_protocol.xet.staged.os.writev", fail)
        answer = upload.xorb(one)
    # Any 5xx makes these clients wait for minutes before they try again.
    assert answer.status_code == 403
    assert "disk is full" in answer.headers["X-Error-Message"]
    upload.xorb(one)
    monkeypatch.setattr(shard_upload.Builder, "build", fail)
    [end] = upload.lines(shard([File([(one, 0, 6)])]))
    assert "disk is full" in end["message"]
    assert not end["retryable"]
    assert upload.post("/v1/shards", shard([File([(one, 0, 6)])])).status_code == 403


def test_a_file_that_is_known_is_not_built_again(
    made: World, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = xorb()
    file = File([(one, 0, 6)])
    made.publish(NAME, [made.store("w.bin", file.content, lfs=True)])
    upload.xorb(one)

    def built(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(shard_upload.Builder, "build", built)
    assert upload.post("/v1/shards", shard([file])).status_code == 200
    epoch = made.hub.xorbs.current(repository(made))
    assert epoch.open_data(one.hash) is None


def test_a_known_file_that_is_damaged_is_built_anew(made: World, upload: Upload) -> None:
    one = xorb()
    file = File([(one, 0, 6)])
    made.publish(NAME, [made.store("w.bin", file.content, lfs=True)])
    path = made.blobs.path(file.digest)
    path.chmod(0o600)
    path.write_bytes(bytes(len(file.content)))
    upload.xorb(one)
    assert upload.lines(shard([file]))[-1] == {"type": "result"}
    assert path.read_bytes() == file.content


def test_a_second_upload_sends_only_what_is_new(made: World, upload: Upload) -> None:
    one, two = xorb(1), xorb(2)
    upload.xorb(one)
    upload.post("/v1/shards", shard([File([(one, 0, 6)])]))
    later = begin(made)
    assert later.url == upload.url, "clients remember by the address what they sent"
    later.xorb(two)
    file = File([(one, 0, 3), (two, 0, 6), (one, 4, 5)])
    assert later.post("/v1/shards", shard([file])).status_code == 200
    assert made.blobs.path(file.digest).read_bytes() == file.content


def test_when_something_is_gone_everything_is_sent_again(made: World, upload: Upload) -> None:
    one = xorb()
    upload.xorb(one)
    first = File([(one, 0, 6)])
    upload.post("/v1/shards", shard([first]))
    made.blobs.remove(first.digest)
    answer = upload.post("/v1/shards", shard([File([(one, 0, 3)])]))
    assert answer.status_code == 400
    assert "run the upload again" in answer.headers["X-Error-Message"]
    again = begin(made)
    assert again.url != upload.url
    assert again.xorb(one).json() == {"was_inserted": True}
    assert again.post("/v1/shards", shard([File([(one, 0, 3)])])).status_code == 200


def test_a_xorb_that_is_sent_again_is_taken_again(made: World, upload: Upload) -> None:
    one = xorb()
    upload.xorb(one)
    first = File([(one, 0, 6)])
    upload.post("/v1/shards", shard([first]))
    made.blobs.remove(first.digest)
    assert upload.xorb(one).json() == {"was_inserted": True}
    assert upload.post("/v1/shards", shard([first])).status_code == 200
    assert made.blobs.path(first.digest).read_bytes() == first.content


def test_a_deleted_repository_leaves_nothing(made: World, upload: Upload) -> None:
    upload.xorb(xorb())
    folder = made.hub.xorbs.root
    assert list(folder.rglob("*.data"))
    body = {"organization": "org", "name": "name", "type": "model"}
    answer = made.client.request("DELETE", "/api/repos/delete", json=body)
    assert answer.status_code == 200
    assert not list(folder.rglob("*.data"))
    assert upload.xorb(xorb()).status_code == 404


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/xorbs/default/" + "0" * 64, b"nonsense"),
        ("/v1/xorbs/default/" + "0" * 64, xorb().stored),
        ("/v1/xorbs/default/" + "0" * 64, b""),
        ("/v1/xorbs/default/" + "x" * 64, xorb().stored),
        ("/v1/xorbs/default/" + "0" * 63, xorb().stored),
        ("/v1/shards", b"nonsense"),
        ("/v1/shards", b""),
        ("/v1/shards", shard([File([(xorb(), 0, 2)])])),
        ("/v2/shards", b"nonsense"),
        ("/v2/shards", b""),
    ],
)
def test_what_is_malformed_is_refused(upload: Upload, path: str, content: bytes) -> None:
    assert upload.post(path, content).status_code == 400


def test_what_is_too_large_is_refused(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_STORED", 1000)
    monkeypatch.setattr(writing, "MAX_SHARD", 1000)
    path = "/v1/xorbs/default/" + "0" * 64
    assert upload.post(path, bytes(1001)).status_code == 413
    assert upload.post("/v1/shards", bytes(1001)).status_code == 413
    assert upload.post("/v2/shards", bytes(1001)).status_code == 413


def test_a_file_larger_than_the_disk_is_refused(
    upload: Upload, made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = xorb()
    upload.xorb(one)
    file = File([(one, 0, 6)] * 50)
    monkeypatch.setattr(made.blobs, "free_bytes", lambda: len(file.content) - 1)
    [end] = upload.lines(shard([file]))
    assert "free space" in end["message"]
    monkeypatch.setattr(made.blobs, "free_bytes", lambda: len(file.content))
    assert upload.lines(shard([file]))[-1] == {"type": "result"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chunks/default/" + "0" * 64),
        ("HEAD", "/v1/chunks/default/" + "0" * 64),
        ("GET", "/v1/chunks/default-merkledb/" + "0" * 64),
        ("POST", "/v1/xorb-grants/default/" + "0" * 64),
        ("POST", "/v1/telemetry"),
        ("GET", "/v2/file-chunk-hashes/" + "0" * 64),
        ("POST", "/v1/xorbs/other/" + "0" * 64),
    ],
)
def test_what_is_not_offered_is_not_there(upload: Upload, method: str, path: str) -> None:
    answer = upload.world.client.request(method, upload.url + path, headers=upload.headers)
    assert answer.status_code == 404


class TestAccess:
    def test_nobody_without_a_token(self, made: World, upload: Upload) -> None:
        anonymous = made.anonymous()
        assert anonymous.get(f"{API}/xet-write-token/main").status_code == 401
        assert anonymous.post(f"{upload.url}/v1/shards").status_code == 401
        for token in ("ada", "nonsense", "a.b", upload.token[:-2]):
            headers = {"Authorization": f"Bearer {token}"}
            answer = anonymous.post(f"{upload.url}/v1/shards", headers=headers)
            assert answer.status_code == 401

    def test_not_with_a_token_to_read(self, made: World, upload: Upload) -> None:
        read = made.client.get(f"{API}/xet-read-token/main").json()["accessToken"]
        upload.token = read
        assert upload.xorb(xorb()).status_code == 401

    def test_not_to_another_repository(self, made: World, upload: Upload) -> None:
        upload.url = begin(made, "org/other").url
        assert upload.xorb(xorb()).status_code == 404

    def test_not_to_another_epoch(self, upload: Upload) -> None:
        upload.url = upload.url[:-16] + "0" * 16
        answer = upload.xorb(xorb())
        assert answer.status_code == 404
        assert "run the upload again" in answer.headers["X-Error-Message"]

    def test_not_after_the_callers_token_was_revoked(self, made: World, upload: Upload) -> None:
        assert upload.xorb(xorb()).status_code == 200
        made.people.revoked.add("t1")
        assert upload.xorb(xorb(1)).status_code == 401
        assert upload.post("/v2/shards", shard([])).status_code == 401

    def test_not_after_some_minutes(
        self, upload: Upload, made: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        later = time.time() + tokens.TOKEN_SECONDS + 1
        monkeypatch.setattr(made.hub.signer, "_clock", lambda: later)
        assert upload.xorb(xorb()).status_code == 401

    def test_not_after_the_caller_lost_the_right_to(
        self, upload: Upload, made: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def may(caller: Any, verb: Verb, *_: object) -> Verdict:
            return Verdict(caller.name == "ada" and verb in {Verb.DISCOVER, Verb.READ})

        monkeypatch.setattr(made.people, "may", may)
        assert upload.xorb(xorb()).status_code == 403
        assert made.client.get(f"{API}/xet-write-token/main").status_code == 403
        assert made.client.get(f"{API}/xet-read-token/main").status_code == 200

    def test_who_may_not_see_it_sees_nothing(self, made: World) -> None:
        headers = {"Authorization": "Bearer bob"}
        for path in ("xet-write-token/main", "xet-read-token/main"):
            hidden = made.client.get(f"{API}/{path}", headers=headers)
            absent = made.client.get(f"/api/models/org/absent/{path}", headers=headers)
            assert hidden.status_code == absent.status_code == 404
            assert hidden.content == absent.content


class TestQuota:
    @pytest.fixture
    def limited(self, made: World) -> World:
        # The cached property of a frozen class: as if the hub had been made with quotas.
        made.hub.__dict__["staging"] = Staging(
            made.metadata, made.blobs, made.people, Quotas(default=20_000)
        )
        return made

    def test_a_xorb_beyond_it_is_refused_with_a_reason(self, limited: World) -> None:
        upload = begin(limited)
        answer = upload.xorb(Xorb([bytes(15_000), b"x" * 6_000]))
        assert answer.status_code == 403
        assert "quota" in answer.headers["X-Error-Message"].lower()
        assert upload.xorb(Xorb([bytes(15_000)])).status_code == 200

    def test_a_file_takes_the_place_of_its_xorbs(self, limited: World) -> None:
        upload = begin(limited)
        one = Xorb([random.Random(0).randbytes(15_000)])
        assert upload.xorb(one).status_code == 200
        file = File([(one, 0, 1)])
        assert upload.lines(shard([file]))[-1] == {"type": "result"}
        assert limited.hub.staging.usage("org").reserved == 15_000

    def test_what_is_in_no_file_still_counts(self, limited: World) -> None:
        upload = begin(limited)
        one = Xorb([b"tiny", random.Random(1).randbytes(15_000)])
        assert upload.xorb(one).status_code == 200
        assert upload.lines(shard([File([(one, 0, 1)])]))[-1] == {"type": "result"}
        assert limited.hub.staging.usage("org").reserved == 15_004
        assert upload.xorb(Xorb([random.Random(2).randbytes(15_000)])).status_code == 403
        assert upload.lines(shard([File([(one, 0, 2)])]))[-1] == {"type": "result"}

    def test_one_chunk_many_times_is_as_much_as_the_file(self, limited: World) -> None:
        upload = begin(limited)
        one = Xorb([bytes(5_000)])
        upload.xorb(one)
        [end] = upload.lines(shard([File([(one, 0, 1)] * 5)]))
        assert end["type"] == "error"
        assert "quota" in end["message"].lower()

    def test_what_was_refused_is_not_counted(self, limited: World) -> None:
        upload = begin(limited)
        one = Xorb([bytes(15_000)])
        path = "/v1/xorbs/default/" + "0" * 64
        assert upload.post(path, one.stored).status_code == 400
        assert limited.hub.staging.usage("org").reserved == 0
