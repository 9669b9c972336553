"""What comes over the wire before and with a commit: good lines, bad lines, half lines."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_hub_protocol import committing
from holdfast_hub_protocol.access import UnavailableError
from holdfast_hub_protocol.errors import HubError
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.operations import (
    AddLfsFile,
    AddStoredFile,
    CopyFile,
    DeleteFile,
    DeleteFolder,
)
from holdfast_hub_protocol.quotas import QuotaError, Quotas

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conftest import World

API = "/api/models/o/n"
BOB = {"Authorization": "Bearer bob"}
HEADER = {"key": "header", "value": {"summary": "title", "description": "more"}}


@pytest.fixture
def hub(world: World) -> World:
    world.client.post("/api/repos/create", json={"name": "n", "organization": "o"})
    return world


def file(path: str, content: bytes = b"1") -> dict[str, Any]:
    encoded = base64.b64encode(content).decode()
    return {"key": "file", "value": {"path": path, "content": encoded, "encoding": "base64"}}


def post(world: World, *lines: object, query: str = "", branch: str = "main", **more: Any) -> Any:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return world.client.post(f"{API}/commit/{branch}{query}", content=body, **more)


def test_a_commit_over_the_wire(hub: World) -> None:
    answer = post(
        hub, HEADER, file("a/b"), {"key": "copyFile", "value": {"path": "c", "srcPath": "a/b"}}
    )
    assert answer.status_code == 200, answer.text
    oid = answer.json()["commitOid"]
    assert answer.json()["commitUrl"] == f"http://testserver/o/n/commit/{oid}"
    commit = hub.client.get(f"{API}/commits/main?expand[]=formatted").json()[0]
    assert (commit["id"], commit["title"], commit["message"]) == (oid, "title", "more")
    assert commit["authors"] == [{"user": "ada"}]
    assert hub.client.get("/o/n/resolve/main/c").content == b"1"
    announced, event = hub.people.events[-4:-2]
    assert (announced.status, event.status) == (0, 200)
    assert (event.operation, event.verb, event.repository) == ("commit", "write", "o/n")
    assert event.details == {"revision": "main", "operations": 2, "commit": oid}


def test_nothing_is_done_that_is_not_on_the_record(hub: World) -> None:
    before = hub.client.get(f"{API}/refs").content
    hub.people.failure = UnavailableError("the disk is full")
    body = {"name": "n", "organization": "o", "type": "model"}
    for answer in (
        post(hub, HEADER, file("x")),
        post(hub, HEADER, file("x"), query="?create_pr=1"),
        hub.client.post(f"{API}/branch/x", json={}),
        hub.client.post(f"{API}/tag/main", json={"tag": "x"}),
        hub.client.post(f"{API}/super-squash/main", json={}),
        hub.client.put(f"{API}/settings", json={"gated": "auto"}),
        hub.client.post("/api/repos/move", json={"fromRepo": "o/n", "toRepo": "o/m"}),
        hub.client.post("/api/repos/create", json=body | {"name": "other"}),
        hub.client.request("DELETE", "/api/repos/delete", json=body),
    ):
        assert answer.status_code == 503, answer.text
    hub.people.failure = None
    assert hub.client.get(f"{API}/refs?include_prs=1").json()["pullRequests"] == []
    assert hub.client.get(f"{API}/refs").content == before
    assert hub.client.get(API).json()["gated"] is False
    assert len(hub.client.get("/api/models").json()) == 1


def test_where_a_commit_may_go(hub: World) -> None:
    hub.client.post(f"{API}/branch/a%2Fb", json={})
    assert post(hub, HEADER, file("x"), branch="a%2Fb").status_code == 200
    assert post(hub, HEADER, file("y"), branch="refs%2Fheads%2Fa%2Fb").status_code == 200
    tree = hub.client.get(f"{API}/tree/a%2Fb").json()
    assert [item["path"] for item in tree] == [".gitattributes", "x", "y"]
    head = hub.client.get(f"{API}/refs").json()["branches"][1]["targetCommit"]
    hub.client.post(f"{API}/tag/main", json={"tag": "v1"})
    for elsewhere in ("nowhere", head, "v1", "refs%2Ftags%2Fv1", "refs%2Fpr%2F9", "%00"):
        answer = post(hub, HEADER, file("x"), branch=elsewhere)
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RevisionNotFound")
    stale = HEADER["value"] | {"parentCommit": "ab" * 20}  # type: ignore[operator]
    assert post(hub, {"key": "header", "value": stale}, file("x")).status_code == 412
    assert post(hub, HEADER, file("x"), headers=BOB).headers["x-error-code"] == "RepoNotFound"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], 400),
        ([HEADER], 400),
        ([file("x"), HEADER], 400),
        ([HEADER, HEADER], 400),
        ([HEADER, []], 400),
        ([HEADER, {"key": "file"}], 400),
        ([HEADER, {"key": "file", "value": {"path": "x"}}], 400),
        ([HEADER, {"key": "exec", "value": {"path": "x"}}], 400),
        ([HEADER, {"key": "file", "value": file("x")["value"] | {"content": "!"}}], 400),
        ([HEADER, {"key": "file", "value": {"path": "x", "content": "\ud800"}}], 400),
        ([HEADER, {"key": "lfsFile", "value": {"path": "x", "algo": "md5", "oid": "0" * 32}}], 400),
        ([HEADER, {"key": "lfsFile", "value": {"path": "x", "oid": "0" * 64, "size": -1}}], 400),
        ([HEADER, {"key": "lfsFile", "value": {"path": "x", "oid": "0" * 64, "size": 1}}], 400),
        ([HEADER, file("../x")], 422),
        ([HEADER, file("a\0")], 422),
        ([HEADER, {"key": "deletedFile", "value": {"path": "absent"}}], 404),
        ([{"key": "header", "value": {}}, file("x")], 400),
        ([{"key": "header", "value": {"summary": ""}}, file("x")], 400),
        ([{"key": "header", "value": {"summary": "\ud800"}}, file("x")], 400),
        ([{"key": "header", "value": {"summary": "a\0"}}, file("x")], 400),
        ([{"key": "header", "value": {"summary": "a", "parentCommit": "main"}}, file("x")], 400),
        ([{"key": "header", "value": {"summary": "a", "description": 1}}, file("x")], 400),
    ],
)  # fmt: skip
def test_bad_lines_commit_nothing(shared_hub: World, lines: list[object], status: int) -> None:
    assert post(shared_hub, *lines).status_code == status
    assert len(shared_hub.client.get(f"{API}/commits/main").json()) == 1


def test_lines_have_an_end(shared_hub: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "MAX_LINE", 1000)
    assert post(shared_hub, HEADER, file("x", b"y" * 2000)).status_code == 413
    monkeypatch.setattr(committing, "MAX_OPERATIONS", 2)
    assert post(shared_hub, HEADER, *(file(f"x{n}") for n in range(3))).status_code == 400
    monkeypatch.setattr(committing, "LARGEST_REGULAR_FILE", 10)
    assert post(shared_hub, HEADER, file("x", b"y" * 11)).status_code == 413
    assert len(shared_hub.client.get(f"{API}/commits/main").json()) == 1


@pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
def test_lines_come_in_any_pieces(full: World, piece: int) -> None:
    lines = [
        HEADER,
        {"key": "lfsFile", "value": {"path": "w", "oid": "ab" * 32, "size": 3}},
        {"key": "deletedFile", "value": {"path": "x"}},
        {"key": "deletedFolder", "value": {"path": "y/"}},
        {"key": "copyFile", "value": {"path": "z", "srcPath": "q", "srcRevision": "main"}},
    ]
    body = b"\n\n".join(json.dumps(line).encode() for line in lines)
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    header, operations = committing.read_commit(full.hub, pieces)
    assert (header.title, header.message, header.parent) == ("title", "more", None)
    assert operations == [
        AddLfsFile("w", "ab" * 32, 3),
        DeleteFile("x"),
        DeleteFolder("y/"),
        CopyFile("z", "q", "main"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["header", "file", "lfsFile", "deletedFile", "deletedFolder", "copyFile"])
FIELDS = st.sampled_from(
    ["path", "content", "encoding", "oid", "size", "algo", "summary", "srcPath", "parentCommit"]
)
LINE = st.fixed_dictionaries(
    {"key": KEYS | st.text(), "value": st.dictionaries(FIELDS, JSON | st.text(), max_size=5) | JSON}
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    lines=st.lists(LINE.map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=6),
    piece=st.integers(1, 50),
    headers=st.integers(0, 1),
)
def test_no_commit_is_an_internal_error(
    full: World, lines: list[bytes], piece: int, headers: int
) -> None:
    body = b"\n".join([json.dumps(HEADER).encode()] * headers + lines)
    pieces = [body[at : at + piece] for at in range(0, len(body), piece)]
    try:
        header, operations = committing.read_commit(full.hub, pieces)
    except HubError as refused:
        assert refused.status in {400, 413}  # noqa: PT017 - it may well read it
    else:
        assert header.title
        assert operations


def preupload(world: World, files: object, **more: Any) -> Any:
    return world.client.post(f"{API}/preupload/main", json={"files": files, **more})


def test_how_files_are_to_come(hub: World) -> None:
    post(hub, HEADER, file("here.txt", b"hello"), file(".gitignore", b"*.log\nbuild/\n"))
    asked = {
        "here.txt": 5, "w.safetensors": 5, "deep/w.bin": 1, "empty.bin": 0, "large.txt": 11 << 20,
        "a.log": 1, "build/x": 1, "größe": 3,
    }  # fmt: skip
    answer = preupload(hub, [{"path": p, "size": s, "sample": ""} for p, s in asked.items()])
    found = {item["path"]: item for item in answer.json()["files"]}
    assert {path for path, item in found.items() if item["uploadMode"] == "lfs"} == {
        "w.safetensors",
        "deep/w.bin",
        "large.txt",
    }
    assert {path for path, item in found.items() if item["shouldIgnore"]} == {"a.log", "build/x"}
    assert found["here.txt"]["oid"] == "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
    assert found["größe"]["oid"] is None
    given = preupload(hub, [{"path": "here.txt", "size": 1}], gitIgnore="here.*")
    assert given.json()["files"][0]["shouldIgnore"]


def test_attributes_decide_where_there_are_some(hub: World) -> None:
    post(hub, HEADER, file(".gitattributes", b"*.png filter=lfs diff=lfs merge=lfs -text\n"))
    answer = preupload(hub, [{"path": "a.png", "size": 1}, {"path": "a.bin", "size": 1}])
    assert [item["uploadMode"] for item in answer.json()["files"]] == ["lfs", "regular"]


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (None, 400),
        ([1], 400),
        ([{"path": "x"}], 400),
        ([{"path": 1, "size": 1}], 400),
        ([{"path": "x", "size": -1}], 400),
        ([{"path": "x", "size": 1e3}], 400),
        ([{"path": "x", "size": 1 << 60}], 400),
        ([{"path": "..\\x", "size": 1}], 422),
        ([{"path": "x", "size": 1}] * 2000, 400),
    ],
)
def test_bad_questions(shared_hub: World, files: object, status: int) -> None:
    assert preupload(shared_hub, files).status_code == status


def test_whom_preupload_answers(hub: World) -> None:
    body = {"files": [{"path": "x", "size": 1}]}
    hidden = hub.client.post(f"{API}/preupload/main", json=body, headers=BOB)
    assert hidden.headers["x-error-code"] == "RepoNotFound"
    missing = hub.client.post(f"{API}/preupload/nowhere", json=body)
    assert missing.headers["x-error-code"] == "RevisionNotFound"


@pytest.mark.parametrize(
    ("card", "wrong", "doubtful"),
    [
        ("---\nlicense: mit\n---\n# Hello", 0, 0),
        ("\n---\nmodel-index: foo\n---\n", 1, 0),
        ("# no metadata", 0, 1),
        ("---\n---\n", 0, 1),
        ("---\na: [\n---\n", 1, 0),
        ("---\n- a\n---\n", 1, 0),
        ("---\na: &x [1]\nb: *x\n---\n", 1, 0),
        (f"---\na: {'[' * 5000}\n---\n", 1, 0),
        ("---\ntags: [1]\nlicense: 3\n---\n", 2, 0),
        (f"---\na: {'b' * 300_000}\n---\n", 0, 1),
        ("---\r\nlicense: mit\r\n---\r\n", 0, 0),
    ],
)
def test_cards_are_read_before_they_are_sent(
    full: World, card: str, wrong: int, doubtful: int
) -> None:
    # One client asks without its token.
    answer = full.anonymous().post(
        "/api/validate-yaml", json={"content": card, "repoType": "model"}
    )
    assert answer.status_code == (400 if wrong else 200)
    found = answer.json()
    assert (len(found["errors"]), len(found["warnings"])) == (wrong, doubtful)
    plain = full.anonymous().post(
        "/api/validate-yaml", json={"content": card}, headers={"Accept": "text/plain"}
    )
    assert plain.text.count("- Error: ") == wrong


def test_anybody_may_ask_about_a_card_but_not_at_any_length(full: World) -> None:
    ask = full.anonymous().post
    assert ask("/api/validate-yaml", json={"content": 1}).status_code == 400
    assert ask("/api/validate-yaml", content=b"[" * 100_000).status_code == 400
    assert ask("/api/validate-yaml", json={"content": "x" * (1 << 20)}).status_code == 413


def test_a_commit_without_end_is_not_stored_to_its_end(
    hub: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "_COUNTED_AT", 1000)
    limited = replace(hub.hub, quotas=Quotas(default=20_000))
    known = hub.metadata.repository(RepositoryId("model", "o", "n"))
    assert known is not None
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield json.dumps(HEADER).encode() + b"\n"
        while sent < 200:
            sent += 1
            yield json.dumps(file(str(sent), str(sent).encode() * 1000)).encode() + b"\n"

    def count(files: Sequence[AddStoredFile]) -> None:
        limited.staging.count(known, {each.sha256: each.size for each in files})

    with pytest.raises(QuotaError):
        committing.read_commit(limited, endless(), count)
    assert sent < 30
