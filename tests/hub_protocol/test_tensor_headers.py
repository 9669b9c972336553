"""The headers of a model in several files, and files that are not what they are called."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest

from holdfast_hub_protocol import tensor_headers

if TYPE_CHECKING:
    import httpx2

    from conftest import World

HEADER = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
INDEX = "deep/model.safetensors.index.json"


def tensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + b"\0" * 4


def publish(world: World, index: object, header: bytes = json.dumps(HEADER).encode()) -> None:
    content = index if isinstance(index, bytes) else json.dumps(index).encode()
    world.publish(
        "org/name",
        [
            world.store(INDEX, content),
            world.store("deep/one.safetensors", tensors(header), lfs=True),
            world.store("deep/two.safetensors", tensors(header) + b"more", lfs=True),
        ],
    )


def asked(world: World, path: str = INDEX) -> httpx2.Response:
    return world.client.get(f"/api/models/org/name/safetensors-metadata/{path}")


def test_headers_of_all_files_that_the_index_names(world: World) -> None:
    weights = {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}
    publish(world, {"metadata": {"total_size": 8}, "weight_map": weights})
    assert asked(world).json() == {
        "index": {"metadata": {"total_size": 8}},
        "headers": {"one.safetensors": HEADER, "two.safetensors": HEADER},
    }
    assert asked(world, "deep/absent.json").status_code == 404
    assert asked(world, "deep").status_code == 404
    assert world.client.get("/api/datasets/org/name/safetensors-metadata/x").status_code == 404


@pytest.mark.parametrize(
    ("index", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b"[" * 100_000, 422),
        ({"weight_map": []}, 422),
        ({"weight_map": {"a": "absent"}}, 404),
        ({"weight_map": {"a": "../secret"}}, 404),
        ({"weight_map": {"a": "/etc/passwd"}}, 404),
        ({"weight_map": {"a": ""}}, 404),
        ({"weight_map": {str(n): str(n) for n in range(tensor_headers.MAX_FILES + 1)}}, 422),
    ],
)
def test_odd_indices(world: World, index: object, status: int) -> None:
    publish(world, index)
    assert asked(world).status_code == status


@pytest.mark.parametrize("header", [b"", b"[]", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}'])
def test_odd_headers(world: World, header: bytes) -> None:
    publish(world, {"weight_map": {"a": "one.safetensors"}}, header)
    assert asked(world).status_code == 422


def test_half_of_a_character_is_passed_on(world: World) -> None:
    publish(world, {"weight_map": {"a": "one.safetensors"}}, b'{"\\ud800": 1}')
    assert asked(world).content.endswith(b'{"one.safetensors": {"\\ud800": 1}}}')


def test_headers_are_bounded_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(world, {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})
    assert asked(world).status_code == 200
    monkeypatch.setattr(tensor_headers, "MAX_HEADERS", len(json.dumps(HEADER)) * 2 - 1)
    refused = asked(world)
    assert refused.status_code == 422
    assert refused.headers["x-error-message"].endswith("from two.safetensors on")
