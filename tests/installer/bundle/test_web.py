"""Downloads over HTTP on loopback, from a server that hangs up in the middle."""

from __future__ import annotations

import http.server
import os
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.bundle import web
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = os.urandom(300_000)


class Rude(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, at most `patience` bytes a connection."""

    patience = 100_000
    ranges = True
    seen: list[str]

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self) -> None:
        if self.path == "/secret":
            self.send_error(401)
            return
        asked = self.headers.get("Range", "")
        type(self).seen.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.patience])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Rude, "seen", [], raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    web._opener.cache_clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rude) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server: str, tmp_path: Path) -> None:
    moved: list[int] = []
    web.download(f"{server}/file", tmp_path / "file", len(CONTENT), moved.append)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Rude.seen == ["", "bytes=100000-", "bytes=200000-"]
    assert sum(moved) == len(CONTENT)


def test_what_an_earlier_run_left_is_kept(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:250_000])
    moved: list[int] = []
    web.download(f"{server}/file", tmp_path / "file", len(CONTENT), moved.append)
    assert sum(moved) == len(CONTENT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Rude.seen == ["bytes=250000-"]


def test_a_server_without_ranges_starts_anew(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rude, "ranges", False)
    monkeypatch.setattr(Rude, "patience", len(CONTENT))
    (tmp_path / "file").write_bytes(b"x" * 1000)
    web.download(f"{server}/file", tmp_path / "file", len(CONTENT), lambda _: None)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_an_overgrown_remainder_is_dropped(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rude, "patience", len(CONTENT))
    (tmp_path / "file").write_bytes(b"x" * (len(CONTENT) + 1))
    web.download(f"{server}/file", tmp_path / "file", len(CONTENT), lambda _: None)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_sends_too_much_does_not_fill_the_disk(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rude, "patience", len(CONTENT))
    web.download(f"{server}/file", tmp_path / "file", 1000, lambda _: None)
    assert (tmp_path / "file").stat().st_size == 1001, "enough for the digest not to fit"


def test_a_server_that_never_delivers_is_given_up_and_the_part_is_kept(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rude, "patience", 10)
    with pytest.raises(HoldfastError, match="broke off again and again"):
        web.download(f"{server}/file", tmp_path / "file", len(CONTENT), lambda _: None)
    assert (tmp_path / "file").stat().st_size == 40


def test_a_server_that_wants_credentials_is_left_to_pip(server: str, tmp_path: Path) -> None:
    with pytest.raises(web.GoneError, match="could not be fetched") as refusal:
        web.download(f"{server}/secret", tmp_path / "file", 10, lambda _: None)
    assert "401" in refusal.value.cause


def test_sizes_are_asked_without_fetching(server: str, tmp_path: Path) -> None:
    assert web.size_of(f"{server}/file") == len(CONTENT)
    (tmp_path / "here").write_bytes(b"123")
    assert web.size_of((tmp_path / "here").as_uri()) == 3
