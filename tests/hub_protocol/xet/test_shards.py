"""Shards: real ones, wrong ones, and any bytes at all."""

from __future__ import annotations

import hashlib
import struct
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xet_parts import (
    END,
    SHARD_TAG,
    File,
    Xorb,
    recorded_files,
    recorded_shard,
    recorded_xorb,
    shard,
)

from holdfast_hub_protocol.xet import shards
from holdfast_hub_protocol.xet.errors import XetError
from holdfast_hub_protocol.xet.shards import check_shard, read_files

HEAD = SHARD_TAG + struct.pack("<QQ", 2, 0)


def test_a_real_shard() -> None:
    data = memoryview(recorded_shard())
    assert check_shard(data) == 3
    digest, _ = recorded_xorb()
    found = list(read_files(data))
    contents = recorded_files()
    assert [file.sha256 for file in found] == [hashlib.sha256(c).hexdigest() for c in contents]
    assert [file.size for file in found] == [len(content) for content in contents]
    terms = [list(file.terms()) for file in found]
    assert all(len(of_file) == 1 for of_file in terms)
    assert {of_file[0][0].xorb for of_file in terms} == {digest}
    assert [(t[0][0].start, t[0][0].end) for t in terms] == [(1, 2), (2, 3), (0, 1)]


def test_files_without_proofs_digest_or_content() -> None:
    xorb = Xorb([b"one", b"two"])
    data = shard([File([(xorb, 0, 2)], proofs=False), File([(xorb, 1, 2)], sha256=""), File([])])
    first, second, empty = read_files(memoryview(data))
    assert [proof for _, proof in first.terms()] == [None]
    assert second.sha256 is None
    assert (empty.size, empty.sha256) == (0, hashlib.sha256(b"").hexdigest())


def test_a_footer_is_passed_over() -> None:
    xorb = Xorb([b"one"])
    assert check_shard(memoryview(shard([File([(xorb, 0, 1)])], [xorb]) + bytes(200))) == 1


ONE = Xorb([b"one"])
TERM = struct.Struct("<32sIIII")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (HEAD[:-1], "no header"),
        (bytes(48) + END + END, "not a shard"),
        (SHARD_TAG + struct.pack("<QQ", 3, 0) + END + END, "not a shard"),
        (HEAD, "without the mark"),
        (HEAD + END, "without the mark"),
        (HEAD + END + END[:-1], "without the mark"),
        (HEAD + TERM.pack(b"f", 0, 2, 0, 0) + TERM.pack(b"x", 0, 3, 0, 1) + END, "run"),
        (HEAD + TERM.pack(b"f", 0, 9, 0, 0) + END + END, "middle of a file"),
        (HEAD + TERM.pack(b"f", 0, 2**32 - 1, 0, 0) + END + END, "middle of a file"),
        (HEAD + TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 3, 1, 1) + END + END, "run"),
        (HEAD + TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 3, 2, 1) + END + END, "run"),
        (HEAD + TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 0, 0, 1) + END + END, "run"),
        (HEAD + TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 9, 0, 8193) + END + END, "run"),
        (HEAD + TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 2**27, 0, 9) + END + END, "run"),
        (HEAD + END + TERM.pack(b"x", 0, 8193, 0, 0) + END, "more than"),
        (HEAD + END + TERM.pack(b"x", 0, 5, 0, 0) + END, "without the mark"),
    ],
)
def test_wrong_shards_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(XetError, match=message):
        check_shard(memoryview(data))


def test_a_shard_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_SHARD", 100)
    with pytest.raises(XetError, match="more than 100"):
        check_shard(memoryview(shard([File([(ONE, 0, 1)])])))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    for given_data in (data, HEAD + data, HEAD + data + END + END):
        try:
            check_shard(memoryview(given_data))
            for file in read_files(memoryview(given_data)):
                list(file.terms())
        except XetError:
            pass


_SHARD = recorded_shard()


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(_SHARD) - 1), st.integers(0, 255)), max_size=6),
    cut=st.one_of(st.none(), st.integers(0, len(_SHARD))),
)
def test_a_changed_real_shard_is_taken_or_refused(
    changes: list[tuple[int, int]], cut: int | None
) -> None:
    changed = bytearray(_SHARD)
    for position, value in changes:
        changed[position] = value
    data = memoryview(bytes(changed[:cut]))
    try:
        assert check_shard(data) <= len(_SHARD) // shards.ENTRY
        for file in read_files(data):
            assert len(list(file.terms())) == file.term_count
    except XetError:
        pass


def test_a_large_shard_takes_no_memory_and_little_time() -> None:
    entry = TERM.pack(b"f", 0, 1, 0, 0) + TERM.pack(b"x", 0, 3, 0, 1)
    data = memoryview(HEAD + entry * 20_000 + END + END)
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        assert check_shard(data) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begun < 20
