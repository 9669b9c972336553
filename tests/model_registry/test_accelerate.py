from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import snapshot_download
from nginx_front import nginx
from registry_parts import (
    ADA,
    BOB,
    LABELS,
    MODEL,
    SEED,
    files_of,
    make_model,
    request,
    run_registry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEIGHTS = f"/{MODEL}/resolve/main/model.safetensors"
# What differs without saying anything about the file.
UNEQUAL = {"x-request-id", "date", "server", "connection"}


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    folder = tmp_path_factory.mktemp("accelerate")
    model = make_model(folder / "model")
    seed: dict[str, Any] = {
        **SEED,
        "models": [{"id": MODEL, "path": "../model", "teams": ["research"], "labels": LABELS}],
    }
    with (
        run_registry(folder / "direct", seed=seed) as direct,
        run_registry(folder / "behind", "--accelerate", "nginx", seed=seed) as behind,
        nginx(folder / "nginx", behind.url.removeprefix("http://"), behind.data / "blobs") as front,
    ):
        yield direct.url, front, model


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Range": "bytes=0-0"},
        {"Range": "bytes=1000-1999"},
        {"Range": "bytes=-5"},
        {"Range": "bytes=2999000-99999999999"},
        {"Range": "bytes=99999999-"},
        {"Range": "bytes=0-1,5-9"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=0-9", "If-Range": '"something else"'},
        {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    ],
)
@pytest.mark.parametrize("path", [WEIGHTS, f"/{MODEL}/resolve/main/config.json"])
def test_nginx_answers_as_the_registry_itself(
    fronts: tuple[str, str, Path], path: str, headers: dict[str, str], method: str
) -> None:
    direct, front, _ = fronts
    expected = request(direct + path, ADA, method, **headers)
    found = request(front + path, ADA, method, **headers)
    assert found[0] == expected[0]
    assert found[2] == expected[2]
    assert _said(found[1]) == _said(expected[1])


def test_if_range_with_the_right_etag_is_a_range(fronts: tuple[str, str, Path]) -> None:
    direct, front, _ = fronts
    etag = request(direct + WEIGHTS, ADA, "HEAD")[1]["etag"]
    for url in (direct, front):
        status, headers, body = request(url + WEIGHTS, Range="bytes=3-6", If_Range=etag)
        assert (status, len(body)) == (206, 4), headers


def test_a_malformed_range_is_the_whole_or_refused(fronts: tuple[str, str, Path]) -> None:
    # RFC 9110 leaves it open; nginx refuses what the registry ignores.
    direct, front, _ = fronts
    assert request(direct + WEIGHTS, Range="bytes=5-1")[0] == 200
    assert request(front + WEIGHTS, Range="bytes=5-1")[0] == 416


def test_stock_client_through_nginx(fronts: tuple[str, str, Path], tmp_path: Path) -> None:
    _, front, model = fronts
    found = snapshot_download(MODEL, endpoint=front, token=ADA, local_dir=tmp_path / "out")
    assert found == str(tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(model)


def test_nothing_is_sent_to_whoever_may_not_read(fronts: tuple[str, str, Path]) -> None:
    _, front, _ = fronts
    for token, status in ((None, 401), ("hft_not-a-token-of-anyone", 401), (BOB, 404)):
        answer = request(front + WEIGHTS, token)
        assert answer[0] == status
        assert len(answer[2]) < 200
        assert "x-accel-redirect" not in answer[1]


def test_blobs_have_no_address_of_their_own(fronts: tuple[str, str, Path]) -> None:
    _, front, model = fronts
    digest = files_of(model)["model.safetensors"]
    for path in (
        f"/_blobs/sha256/{digest[:2]}/{digest}",
        f"/%5fblobs/sha256/{digest[:2]}/{digest}",
        f"//_blobs/sha256/{digest[:2]}/{digest}",
        f"/x/../_blobs/sha256/{digest[:2]}/{digest}",
        "/_blobs/../registry.db",
        "/_blobs../registry.db",
    ):
        assert request(front + path)[0] in {400, 404}, path


def _said(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in UNEQUAL}
