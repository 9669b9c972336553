"""Reads of very large files by xet; here everything over 1,000 bytes is very large."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_hub_protocol.xet import reading, tokens
from holdfast_hub_protocol.xet.xorbs import XorbReader

if TYPE_CHECKING:
    import httpx

    # The fixture's class lives in conftest, which cannot be imported by name.
    World = Any

# test_databases.py goes through the same on both databases.
pytestmark = pytest.mark.parametrize("world", ["sqlite"], indirect=True)

API = "/api/models/org/name"
CONTENT = random.Random(0).randbytes(1_000_003)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files into pieces of 1,024 bytes, 16 of them in a xorb."""
    monkeypatch.setattr(reading, "MAX_CHUNK", 1024)
    monkeypatch.setattr(reading, "CHUNKS", 16)
    monkeypatch.setattr(reading, "XORB", 16 * 1024)
    monkeypatch.setattr(reading, "_STORED", 1024 + 8)


@pytest.fixture
def large(world: World) -> World:
    object.__setattr__(world.hub, "xet_reads_over", 1000)
    files = [
        world.store("w.bin", CONTENT, lfs=True),
        world.store("small.bin", b"x" * 1000, lfs=True),
        world.store("text.txt", b"x" * 5000),
    ]
    world.publish("org/name", files)
    world.publish("org/other", files[1:])
    return world


class Client:
    """Reads as clients do."""

    def __init__(self, world: World) -> None:
        self.world = world
        head = world.client.head("/org/name/resolve/main/w.bin")
        self.file = head.headers["X-Xet-Hash"]
        grant = world.client.get(path_of(head.headers["X-Xet-Refresh-Route"])).json()
        self.url = path_of(grant["casUrl"])
        self.headers = {"Authorization": f"Bearer {grant['accessToken']}"}

    def ask(self, first: int | None = None, last: int | None = None, version: int = 1) -> Any:
        headers = {} if first is None else {"Range": f"bytes={first}-{last}"}
        return self.world.client.get(
            f"{self.url}/v{version}/reconstructions/{self.file}",
            headers={**self.headers, **headers},
        )

    def read(self, first: int, last: int) -> bytes:
        document = self.ask(first, last).json()
        content = b""
        for term in document["terms"]:
            [fetch] = document["fetch_info"][term["hash"]]
            assert fetch["range"] == term["range"]
            answer = fetch_range(self.world, fetch["url"], fetch["url_range"])
            chunks: list[bytes] = []
            reader = XorbReader(lambda pieces, to=chunks: to.extend(map(bytes, pieces)))
            reader.feed(answer.content)
            assert len(chunks) == term["range"]["end"] - term["range"]["start"]
            assert sum(map(len, chunks)) == term["unpacked_length"]
            content += b"".join(chunks)
        start = document["offset_into_first_range"]
        return content[start : start + last - first + 1]


def path_of(url: str) -> str:
    assert url.startswith("http://testserver/")
    return urlsplit(url).path


def fetch_range(world: World, url: str, wanted: dict[str, int]) -> httpx.Response:
    # Clients send no token here: the address is all.
    answer: httpx.Response = world.anonymous().get(
        path_of(url), headers={"Range": f"bytes={wanted['start']}-{wanted['end']}"}
    )
    assert answer.status_code == 206, answer.text
    assert len(answer.content) == wanted["end"] - wanted["start"] + 1
    return answer


def test_only_very_large_files_are_offered(large: World) -> None:
    for path, offered in [("w.bin", True), ("small.bin", False), ("text.txt", False)]:
        for answer in (
            large.client.head(f"/org/name/resolve/main/{path}"),
            large.client.get(f"/org/name/resolve/main/{path}"),
        ):
            found = {name for name in answer.headers if "xet" in name or name == "link"}
            expected = {"x-xet-hash", "x-xet-refresh-route", "link"} if offered else set()
            assert found == expected
    listed = large.client.get(f"{API}/tree/main").json()
    assert {item["path"] for item in listed if "xetHash" in item} == {"w.bin"}
    posted = large.client.post(f"{API}/paths-info/main", json={"paths": ["w.bin", "small.bin"]})
    assert {item["path"] for item in posted.json() if "xetHash" in item} == {"w.bin"}


def test_nothing_is_offered_by_default(world: World) -> None:
    world.publish("org/name", [world.store("w.bin", CONTENT, lfs=True)])
    assert "x-xet-hash" not in world.client.head("/org/name/resolve/main/w.bin").headers
    assert "xetHash" not in world.client.get(f"{API}/tree/main").text


def test_the_whole_file(large: World) -> None:
    client = Client(large)
    assert client.read(0, len(CONTENT) - 1) == CONTENT
    document = client.ask().json()
    assert document["offset_into_first_range"] == 0
    assert sum(term["unpacked_length"] for term in document["terms"]) == len(CONTENT)
    # How clients write "to the end".
    assert client.ask(0, 2**64 - 2).json()["terms"] == document["terms"]
    ends = client.ask(5000, 2**64 - 2).json()
    assert ends["offset_into_first_range"] == 5000 - 4096


@pytest.fixture
def reader(large: World) -> Client:
    return Client(large)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_range(reader: Client, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(CONTENT) - 1))
    last = data.draw(st.integers(first, min(first + 40_000, len(CONTENT) - 1)))
    assert reader.read(first, last) == CONTENT[first : last + 1]


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (1023, 1024), (16383, 16384), (999_424, 1_000_002), (7, 10**9)]
)
def test_ranges_at_the_edges(reader: Client, first: int, last: int) -> None:
    assert reader.read(first, last) == CONTENT[first : last + 1]


def test_past_the_end(reader: Client) -> None:
    answer = reader.ask(len(CONTENT), len(CONTENT) + 5)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


def test_the_second_version_says_the_same(reader: Client) -> None:
    one, two = reader.ask(100, 90_000).json(), reader.ask(100, 90_000, version=2).json()
    assert one["terms"] == two["terms"]
    for digest, [fetch] in one["fetch_info"].items():
        [other] = two["xorbs"][digest]
        assert other["ranges"] == [{"chunks": fetch["range"], "bytes": fetch["url_range"]}]


@pytest.mark.parametrize(
    "wanted", [(0, 0), (7, 8), (0, 2063), (1031, 1033), (500, 16_511), (16_511, 16_511)]
)
def test_any_range_of_a_xorb(reader: Client, wanted: tuple[int, int]) -> None:
    url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"].rpartition("/")[0] + "/3"
    world = reader.world
    whole = world.anonymous().get(path_of(url))
    assert whole.status_code == 200
    assert len(whole.content) == 16 * 1032
    answer = fetch_range(world, url, {"start": wanted[0], "end": wanted[1]})
    assert answer.content == whole.content[wanted[0] : wanted[1] + 1]
    past = world.anonymous().get(path_of(url), headers={"Range": "bytes=16512-"})
    assert past.status_code == 416


@pytest.mark.parametrize("index", ["62", "999999999", "x", "-1", "1.0"])
def test_parts_that_are_not_there(reader: Client, index: str) -> None:
    url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"].rpartition("/")[0]
    assert reader.world.anonymous().get(f"{path_of(url)}/{index}").status_code == 404


def test_only_files_of_the_revision_and_only_large_ones(large: World, reader: Client) -> None:
    small = large.store("small.bin", b"x" * 1000, lfs=True).sha256
    elsewhere = large.store("elsewhere", CONTENT[:-1], lfs=True)
    large.publish("org/other", [elsewhere])
    for file in (small, elsewhere.sha256, "0" * 64, "x"):
        reader.file = file
        assert reader.ask().status_code == 404


def test_damaged_content_is_not_sent(large: World, reader: Client) -> None:
    large.blobs.remove(reader.file)
    url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"]
    assert large.anonymous().get(path_of(url)).status_code == 410


class TestAccess:
    def test_a_revoked_token_ends_it(self, large: World, reader: Client) -> None:
        url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"]
        large.people.revoked.add("t1")
        assert reader.ask().status_code == 401
        assert large.anonymous().get(path_of(url)).status_code == 401

    def test_addresses_end(
        self, large: World, reader: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import time

        url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"]
        later = time.time() + tokens.TOKEN_SECONDS + 1
        monkeypatch.setattr(large.hub.signer, "_clock", lambda: later)
        # Clients ask again for the addresses on a 403, and on nothing else.
        assert large.anonymous().get(path_of(url)).status_code == 403
        assert reader.ask().status_code == 401

    def test_addresses_are_for_one_repository(self, large: World, reader: Client) -> None:
        url = path_of(reader.ask().json()["fetch_info"].popitem()[1][0]["url"])
        assert large.anonymous().get(url.replace("org/name", "org/other")).status_code == 404
        reader.url = reader.url.replace("org/name", "org/other")
        assert reader.ask().status_code == 404

    def test_not_with_a_token_to_write(self, large: World, reader: Client) -> None:
        token = large.client.get(f"{API}/xet-write-token/main").json()["accessToken"]
        reader.headers = {"Authorization": f"Bearer {token}"}
        assert reader.ask().status_code == 401

    def test_not_of_a_revision_that_was_disabled(
        self, large: World, reader: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from holdfast_hub_protocol.admission import DisabledError

        url = reader.ask().json()["fetch_info"].popitem()[1][0]["url"]

        def check_fetch(*_: object) -> None:
            raise DisabledError("quarantine")

        monkeypatch.setattr(large.hub.admission, "check_fetch", check_fetch)
        for answer in (
            reader.ask(),
            large.anonymous().get(path_of(url)),
            large.client.get(f"{API}/xet-read-token/main"),
        ):
            assert answer.status_code == 403
            assert answer.headers["X-Error-Message"] == "Access to this resource is disabled."
