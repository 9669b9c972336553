"""Requests that no well-meaning client sends, and the exact words of every refusal."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_hub_protocol.access import UnavailableError

if TYPE_CHECKING:
    import httpx2

    from conftest import World

MODEL = "org/name"
INFO = f"/api/models/{MODEL}"
FILE = f"/{MODEL}/resolve/main"
BOB = {"Authorization": "Bearer bob"}


def said(response: httpx2.Response) -> tuple[int, str | None, str | None]:
    headers = response.headers
    return response.status_code, headers.get("x-error-code"), headers.get("x-error-message")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/revision/main", "/tree/main", "/tree/main/many", "/refs", "/commits/main"),
        *("/auth-check", "/auth-check/write"),
    ],
)
def test_what_one_may_not_see_looks_like_what_is_not_there(full: World, path: str) -> None:
    hidden = full.client.get(INFO + path, headers=BOB)
    absent = full.client.get(f"/api/models/org/absent{path}", headers=BOB)
    assert said(hidden) == said(absent) == (404, "RepoNotFound", "Repository not found")
    assert hidden.content == absent.content
    assert set(hidden.headers) == set(absent.headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_hidden_files_look_absent_too(full: World, method: str) -> None:
    hidden = full.client.request(method, f"{FILE}/config.json", headers=BOB)
    absent = full.client.request(method, "/org/absent/resolve/main/config.json", headers=BOB)
    assert said(hidden) == said(absent) == (404, "RepoNotFound", "Repository not found")
    assert "x-repo-commit" not in hidden.headers


@pytest.mark.parametrize(
    "path", [INFO, "/api/models/org/absent", f"{FILE}/config.json", "/api/models"]
)
@pytest.mark.parametrize(
    ("authorization", "code", "message"),
    [
        (None, "RepoNotFound", "Invalid username or password."),
        ("Bearer nobody", None, "Invalid credentials in Authorization header"),
        ("Bearer ", None, "Invalid credentials in Authorization header"),
        ("Basic YWRhOmFkYQ==", None, "Invalid credentials in Authorization header"),
        ("ada", None, "Invalid credentials in Authorization header"),
    ],
)
def test_without_a_good_token_everything_looks_alike(
    full: World, path: str, authorization: str | None, code: str | None, message: str
) -> None:
    headers = {"Authorization": authorization} if authorization is not None else {}
    assert said(full.anonymous().get(path, headers=headers)) == (401, code, message)
    assert full.people.events == []


def test_health_needs_no_token_and_tells_nothing(full: World) -> None:
    assert full.anonymous().get("/healthz").json() == {"status": "ok"}


def test_missing_entries_and_revisions(full: World) -> None:
    missing = full.client.head(f"{FILE}/absent")
    assert said(missing) == (404, "EntryNotFound", "Entry not found: absent")
    assert missing.headers["x-repo-commit"] == f"{1:040x}"
    unknown = full.client.head(f"/{MODEL}/resolve/v9/config.json")
    assert said(unknown) == (404, "RevisionNotFound", "Invalid rev id: v9")
    assert said(full.client.get(f"{FILE}/many"))[1] == "EntryNotFound", "a folder is no file"
    assert said(full.client.get(f"{INFO}/tree/main/config.json"))[1] == "EntryNotFound"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../../etc/passwd",
            "%2e%2e/%2e%2e/etc/passwd",
            "..%2f..%2fetc%2fpasswd",
            "%2fetc/passwd",
        ),
        *("many%2f..%2fconfig.json", "config.json/", "%00"),
        *(
            "config.json%00",
            "%ff%fe",
            "%c3%28",
            "%ed%a0%80",
            "%",
            "%zz",
            "a" * 2000,
            "config.json%0a",
        ),
        *("", "%20", "%5c..%5cx", "%E2%80%AE", "con\u0301fig", "CONFIG.JSON", "%252e%252e/x"),
    ],
)
def test_odd_paths_are_missing_entries(full: World, path: str) -> None:
    response = full.client.get(f"{FILE}/{path}")
    # A client's own ".." is gone before it is sent: then it is another route or repository.
    assert response.status_code == 404, response.text
    assert b"root:" not in response.content
    tree = full.client.get(f"{INFO}/tree/main/{path}" if path else f"{INFO}/tree/main/x")
    assert tree.status_code == 404


@pytest.mark.parametrize(
    "revision",
    [
        "%00",
        "%ff",
        "%2e%2e",
        "a" * 500,
        "refs%2Fpr%2F1",
        "main%0a",
        "%F0%9F%92%A9",
        "'; drop--",
    ],
)
def test_odd_revisions_are_missing_revisions(full: World, revision: str) -> None:
    raw = full.client.get(f"/api/models/{MODEL}/revision/{revision}")
    assert raw.status_code == 404
    assert raw.headers["x-error-code"] == "RevisionNotFound"


@pytest.mark.parametrize(
    "name",
    ["org/na%00me", "org/%ff", "%2e%2e/%2e%2e", "org/n%2fme", "ORG/NAMES", "a/b%20c", "x", "org"],
)
def test_odd_names_are_missing_repositories(full: World, name: str) -> None:
    assert said(full.client.get(f"/api/models/{name}"))[1] == "RepoNotFound"
    assert said(full.client.head(f"/{name}/resolve/main/x"))[1] == "RepoNotFound"
    assert said(full.client.get(f"/api/models/{name}/tree/main"))[1] == "RepoNotFound"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        *(("/api/agent-harnesses", "GET", 404), ("/api/telemetry/x", "HEAD", 404)),
        *(("/", "GET", 404), ("/api", "GET", 404), (f"{INFO}/nothing", "GET", 404)),
        *(
            (INFO, "DELETE", 405),
            (f"{FILE}/config.json", "PUT", 405),
            ("/api/spaces/a/b", "GET", 404),
        ),
        (f"{INFO}/", "GET", 404),
    ],
)
def test_other_routes(full: World, path: str, method: str, status: int) -> None:
    response = full.client.request(method, path)
    assert response.status_code == status
    assert response.headers["x-request-id"]


def test_headers_of_files(full: World) -> None:
    regular = full.client.head(f"{FILE}/config.json").headers
    assert regular["x-repo-commit"] == f"{1:040x}"
    assert re.fullmatch(r'"[0-9a-f]{40}"', regular["etag"])
    assert regular["content-length"] == "2"
    assert "x-linked-etag" not in regular
    large = full.client.get(f"{FILE}/w.bin")
    assert re.fullmatch(r'"[0-9a-f]{64}"', large.headers["etag"])
    assert large.headers["x-linked-etag"] == large.headers["etag"]
    assert large.headers["x-linked-size"] == large.headers["content-length"] == "10240"
    assert large.content == bytes(range(256)) * 40
    assert full.client.get(f"{FILE}/empty").content == b""


def test_ranges(full: World) -> None:
    content = bytes(range(256)) * 40
    for asked, first, last in (("0-9", 0, 9), ("10000-", 10000, 10239), ("-1", 10239, 10239)):
        part = full.client.get(f"{FILE}/w.bin", headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/10240"
        assert part.content == content[first : last + 1]
    past = full.client.get(f"{FILE}/w.bin", headers={"Range": "bytes=10240-"})
    assert past.status_code == 416
    assert past.headers["content-range"] == "bytes */10240"
    head = full.client.head(f"{FILE}/w.bin", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (200, "10240")


def test_tree_pages_follow_one_another(full: World) -> None:
    address: str | None = f"{INFO}/tree/main?recursive=true&limit=7"
    seen: list[str] = []
    pages = 0
    while address is not None:
        response = full.client.get(address)
        assert len(response.json()) <= 7
        seen += [item["path"] for item in response.json()]
        address = response.links.get("next", {}).get("url")
        pages += 1
    assert pages == 6
    assert seen == sorted(seen)
    assert len(seen) == len(set(seen)) == 37
    inside = full.client.get(f"{INFO}/tree/main/many").json()
    assert len(inside) == 31
    assert [item["type"] for item in inside if item["path"] == "many/deep"] == ["directory"]


def test_links_keep_the_scheme_that_the_edge_says(full: World) -> None:
    address = f"{INFO}/tree/main?limit=1"
    link = full.client.get(address, headers={"X-Forwarded-Proto": "https", "Host": "hub.x:8443"})
    assert link.headers["link"].startswith(f"<https://hub.x:8443{INFO}/tree/main?limit=1&cursor=")
    for bad in ({"Host": "a>b"}, {"X-Forwarded-Proto": "javascript"}):
        assert full.client.get(address, headers=bad).status_code == 400


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=1e9", "cursor=%00", "cursor=ä"]
)
def test_bad_queries_are_bad_requests(full: World, query: str) -> None:
    assert full.client.get(f"{INFO}/tree/main?{query}").status_code == 400


def test_listing_pages_and_order(world: World) -> None:
    for n in range(25):
        world.publish(f"org{n % 3}/m{n:02d}", [world.store("x", str(n).encode())])
    for query, key in (
        ("", lambda item: item["id"]),
        ("&sort=createdAt", lambda item: -item["_date"]),
    ):
        address: str | None = f"/api/models?limit=4{query}"
        seen: list[dict[str, Any]] = []
        while address is not None:
            response = world.client.get(address)
            seen += response.json()
            address = response.links.get("next", {}).get("url")
        for item in seen:
            item["_date"] = int(item["id"][-2:])
        assert len(seen) == 25
        assert [item["id"] for item in seen] == [item["id"] for item in sorted(seen, key=key)]
    assert len(world.client.get("/api/models?author=org1").json()) == 8
    assert [i["id"] for i in world.client.get("/api/models?search=M07").json()] == ["org1/m07"]
    assert world.client.get("/api/models?search=%25").json() == []
    assert world.client.get("/api/models", headers=BOB).json() == []
    assert world.client.get("/api/models?sort=password").status_code == 400
    assert world.client.get("/api/models?cursor=W10=").status_code == 400


def test_paths_info_takes_forms_and_json_and_nothing_else(full: World) -> None:
    address = f"{INFO}/paths-info/main"
    form = full.client.post(address, data={"paths": ["config.json", "many"], "expand": "true"})
    body = full.client.post(address, json={"paths": ["config.json", "many"], "expand": True})
    assert form.json() == body.json()
    assert [item["path"] for item in form.json()] == ["config.json", "many"]
    assert form.json()[0]["lastCommit"]["id"] == f"{1:040x}"
    odd = ["../x", "", "\0", "a" * 3000, "\ud800", 7, None]
    assert full.client.post(address, content=json.dumps({"paths": odd}), headers=JSON).json() == []
    for content in (b"{", b"[]", b'{"paths": 1}', b"[" * 50_000, b"\xff"):
        assert full.client.post(address, content=content, headers=JSON).status_code == 400
    assert full.client.post(address, content=b"x" * (9 << 20)).status_code == 413


JSON = {"Content-Type": "application/json"}


def test_no_answer_without_the_record_of_it(full: World) -> None:
    full.people.failure = UnavailableError("disk full at /secret")
    refused = full.client.get(f"{FILE}/config.json")
    assert refused.status_code == 503
    assert "secret" not in refused.text
    full.people.failure = RuntimeError("bug at /secret")
    broken = full.client.get(INFO)
    assert broken.status_code == 500
    assert "secret" not in broken.text
    assert "secret" not in str(broken.headers)


def test_the_record_says_what_was_read(full: World) -> None:
    full.client.get(f"{FILE}/w.bin", headers={"Range": "bytes=0-9"})
    full.client.get(f"{FILE}/absent")
    full.client.get(INFO, headers=BOB)
    read, missing, denied = full.people.events
    assert (read.operation, read.status, read.repository) == ("resolve", 206, MODEL)
    assert read.details["path"] == "w.bin"
    assert read.details["range"] == "bytes=0-9"
    assert read.details["commit"] == f"{1:040x}"
    assert (missing.status, missing.details["path"]) == (404, "absent")
    assert (denied.status, denied.caller.name, denied.verdict.allowed) == (404, "bob", False)


def test_a_blob_that_is_gone_is_said_not_sent(world: World) -> None:
    world.publish(MODEL, [world.store("w.bin", b"weights", lfs=True)])
    for blob in (world.folder / "blobs" / "sha256").rglob("*"):
        if blob.is_file():
            blob.unlink()
    response = world.client.get(f"{FILE}/w.bin")
    assert response.status_code == 410, "not 5xx, which clients would ask for again"
    assert "import it again" in response.headers["x-error-message"]
    assert world.client.head(f"{FILE}/w.bin").status_code == 200


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(
    path=st.lists(
        st.sampled_from(
            [
                *("api", "models", "org", "name", "resolve", "main", "tree", "revision", "refs"),
                *(
                    "config.json",
                    "many",
                    "..",
                    ".",
                    "",
                    "%2e%2e",
                    "%2f",
                    "%00",
                    "%ff",
                    "paths-info",
                ),
            ]
        )
        | st.text(max_size=6).map(
            lambda text: "".join(f"%{b:02x}" for b in text.encode("utf-8", "replace"))
        ),
        max_size=9,
    ),
    range_header=st.none() | st.from_regex(r"bytes=[0-9,-]{0,25}", fullmatch=True),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_no_request_is_an_internal_error(
    full: World, path: list[str], range_header: str | None, method: str
) -> None:
    headers = {"Range": range_header} if range_header else {}
    response = full.client.request(method, "http://testserver/" + "/".join(path), headers=headers)
    assert response.status_code < 500
