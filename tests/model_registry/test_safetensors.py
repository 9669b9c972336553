"""Headers of safetensors: sound ones are read as the reference does, others are refused."""

from __future__ import annotations

import contextlib
import io
import json
import math
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast_model_registry.formats import FormatError
from holdfast_model_registry.formats.safetensors import (
    DTYPES,
    MAX_HEADER_SIZE,
    Header,
    read_header,
)
from holdfast_model_registry.formats.shards import index_problem, missing_shards

if TYPE_CHECKING:
    from pathlib import Path

SOUND = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def file_of(header: Any, data: bytes = b"", *, text: bytes | None = None) -> bytes:
    """Return a file with this header, as JSON or as it is."""
    raw = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(raw)) + raw + data


def parsed(content: bytes) -> Header:
    return read_header(io.BytesIO(content), len(content))


def why_refused(content: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        parsed(content)
    return str(caught.value)


@st.composite
def sound_files(draw: st.DrawFn) -> bytes:
    """Make files that hold tensors of any dtype, one behind the other, in any order of names."""
    names = draw(st.lists(st.text(max_size=12), max_size=6, unique=True))
    header: dict[str, Any] = {}
    at = 0
    for name in names:
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = draw(st.lists(st.integers(0, 5), max_size=3))
        if math.prod(shape) * DTYPES[dtype] % 8:
            shape = [*shape, 8]
        size = math.prod(shape) * DTYPES[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5)))
    padding = b" " * draw(st.integers(0, 8))
    return file_of(header, bytes(at), text=json.dumps(header).encode() + padding)


@quick
@given(sound_files())
def test_what_is_sound_is_taken(content: bytes) -> None:
    found = parsed(content)
    total = sum(tensor.end - tensor.begin for tensor in found.tensors.values())
    assert len(content) == 8 + int.from_bytes(content[:8], "little") + total


@quick
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff" * 8)
@example(file_of({}))
def test_any_bytes_are_a_header_or_a_refusal(content: bytes) -> None:
    with contextlib.suppress(FormatError):
        parsed(content)


@quick
@given(sound_files(), st.data())
def test_what_is_taken_is_what_the_reference_reader_takes(
    content: bytes, data: st.DataObject
) -> None:
    reference = pytest.importorskip("safetensors")
    altered = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(altered) - 1))
        altered[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        altered = altered[: data.draw(st.integers(0, len(altered)))]
    try:
        ours = parsed(bytes(altered))
    except FormatError:
        return  # stricter is allowed
    theirs = dict(reference.deserialize(bytes(altered)))
    assert set(theirs) == set(ours.tensors)
    for name, tensor in ours.tensors.items():
        assert list(tensor.shape) == theirs[name]["shape"]
        assert len(theirs[name]["data"]) == tensor.end - tensor.begin


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    )
)
def test_any_json_in_the_place_of_a_tensor_is_a_refusal(document: Any) -> None:
    for header in (document, {"a": document}, {"__metadata__": document}):
        try:
            taken = parsed(file_of(header))
        except FormatError:
            continue
        assert not taken.tensors


def tensor(begin: Any, end: Any, shape: Any = None, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": tensor(0, 4), "b": tensor(2, 6)}, 6, "overlaps"),
        ({"a": tensor(0, 4), "b": tensor(0, 4)}, 4, "overlaps"),
        ({"a": tensor(0, 4), "b": tensor(5, 9)}, 9, "nobody's"),
        ({"a": tensor(1, 5)}, 5, "nobody's"),
        ({"a": tensor(0, 4)}, 3, "past the file"),
        ({"a": tensor(0, 4)}, 5, "after the last tensor"),
        ({}, 1, "after the last tensor"),
        ({"a": tensor(4, 0)}, 4, "ends before it begins"),
        ({"a": tensor(0, 4, [5])}, 4, "its dtype and shape 5"),
        ({"a": tensor(0, 4, [4], "U9")}, 4, "unknown dtype"),
        ({"a": tensor(0, 4, [4], ["U8"])}, 4, "unknown dtype"),
        ({"a": tensor(0, 4, [True, 4])}, 4, "whole numbers"),
        ({"a": tensor(0, 4, [-4])}, 4, "whole numbers"),
        ({"a": tensor(0, 4, [4.0])}, 4, "whole numbers"),
        ({"a": tensor(0, 4, [1 << 63, 0])}, 4, "whole numbers"),
        ({"a": tensor(0, 4, [1 << 62, 1 << 62])}, 4, "no size"),
        ({"a": tensor(0, 4, [1] * 65)}, 4, "whole numbers"),
        ({"a": tensor(0, 2, [3], "F4")}, 2, "no size in whole bytes"),
        ({"a": tensor(0, "4")}, 4, "two whole numbers"),
        ({"a": tensor(0, 1 << 64)}, 4, "two whole numbers"),
        ({"a": {**tensor(0, 4), "more": 1}}, 4, "no more"),
        ({"a": {"dtype": "U8", "shape": [4]}}, 4, "needs dtype"),
        ({"a": [1]}, 0, "needs dtype"),
        ({"__metadata__": {"a": 1}}, 0, "not text"),
        ({"__metadata__": ["a"]}, 0, "not an object"),
        ([], 0, "does not begin with {"),
    ],
)
def test_a_header_that_contradicts_itself_or_the_file(header: Any, data: int, words: str) -> None:
    assert words in why_refused(file_of(header, bytes(data)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":1,"a":2}', "stands twice"),
        (b'{"__metadata__":{},"__metadata__":{}}', "stands twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}', "stands twice"),
        (b'{"a":NaN}', "not a number"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"\xff":1}', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "does not begin with {"),
        (b" {}", "does not begin with {"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
    ],
)
def test_text_that_is_not_strict_json(text: bytes, words: str) -> None:
    assert words in why_refused(file_of(None, text=text))


def test_lengths_that_lie() -> None:
    assert "shorter than the length" in why_refused(b"1234567")
    assert "would end past the file" in why_refused(struct.pack("<Q", 1 << 63) + b"{}")
    large = struct.pack("<Q", MAX_HEADER_SIZE + 1)
    with pytest.raises(FormatError, match="more than"):
        read_header(io.BytesIO(large), MAX_HEADER_SIZE + 100)


def test_an_index_agrees_with_its_files(tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(file_of(SOUND, bytes(16)))
    weights = {"w/model-1.safetensors": shard}
    right = json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode()
    index = "w/model.safetensors.index.json"
    assert index_problem(index, right, weights) == ""
    for document, words in (
        ({"weight_map": {"a": "model-2.safetensors"}}, "not there"),
        ({"weight_map": {"a": "../../etc/passwd"}}, "not there"),
        ({"weight_map": {"b": "model-1.safetensors"}}, "does not hold 'b'"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "names no file"),
        ([], "not a JSON object"),
    ):
        assert words in index_problem(index, json.dumps(document).encode(), weights)
    assert "which the index does not know" in index_problem(
        index,
        json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode(),
        {"w/model-1.safetensors": two_tensors(tmp_path)},
    )


def two_tensors(folder: Path) -> Path:
    path = folder / "two"
    path.write_bytes(file_of({"a": tensor(0, 4), "b": tensor(4, 8)}, bytes(8)))
    return path


def test_a_gap_in_numbered_files_is_seen() -> None:
    present = dict.fromkeys(["m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors", "x"])
    assert missing_shards(present) == ["m-00002-of-00003.safetensors"]
    assert missing_shards({"m-00001-of-99999.safetensors": None}) == []
