"""Chunks and xorbs: real ones, wrong ones, and bombs."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xet_parts import (
    Xorb,
    compressed,
    header,
    plain,
    recorded_files,
    recorded_xorb,
)

from holdfast_hub_protocol.xet import hashing, xorbs
from holdfast_hub_protocol.xet.chunks import MAX_CHUNK
from holdfast_hub_protocol.xet.errors import XetError
from holdfast_hub_protocol.xet.xorbs import Segment, XorbIndex, XorbReader

if TYPE_CHECKING:
    from collections.abc import Iterable


def take(stored: bytes, expected: bytes | None = None, step: int = 1 << 20) -> bytes:
    """Take in a xorb piece by piece; return the content of its chunks."""
    content: list[bytes] = []
    reader = XorbReader(lambda pieces: content.extend(map(bytes, pieces)))
    for start in range(0, len(stored), step):
        reader.feed(stored[start : start + step])
    if expected is not None:
        reader.finish(expected)
    return b"".join(content)


def feed_all(reader: XorbReader, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        reader.feed(piece)


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_a_real_xorb_in_pieces_of_any_size(step: int) -> None:
    digest, stored = recorded_xorb()
    noise, text, floats = recorded_files()
    assert take(stored, digest, step) == floats + noise + text


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1000, 1001, 1002, 1003, MAX_CHUNK])
def test_grouped_chunks_of_any_length(length: int) -> None:
    content = bytes(number % 251 for number in range(length))
    assert take(compressed(content, grouped=True)) == content
    assert take(compressed(content)) == content


def test_a_footer_is_passed_over() -> None:
    xorb = Xorb([b"one", b"two"])
    assert take(xorb.stored + b"XETBLOB\1" + bytes(500), xorb.hash, step=5) == b"onetwo"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (header(0, 4, 4, version=1) + b"four", "version"),
        (header(3, 4, 4) + b"four", "scheme"),
        (header(99, 4, 4) + b"four", "scheme"),
        (header(0, 4, 5) + b"four", "lengths differ"),
        (header(0, 0, 0), "0 bytes"),
        (header(1, 9, MAX_CHUNK + 1) + bytes(9), "at most"),
        (header(1, 2 * MAX_CHUNK + 1, 9), "at most"),
        (header(1, 9, 9) + b"not LZ4 !", "not LZ4"),
        (header(1, 30, 100) + lz4.frame.compress(bytes(90))[:30].ljust(30, b"\0"), "chunk"),
    ],
)
def test_wrong_chunks_are_refused(stored: bytes, message: str) -> None:
    with pytest.raises(XetError, match=message):
        take(stored)


@pytest.mark.parametrize("scheme", [1, 2])
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_compressed_chunk_of_another_length_is_refused(scheme: int, wrong: int) -> None:
    stored = lz4.frame.compress(b"some text, some text, some text")
    with pytest.raises(XetError, match="length"):
        take(header(scheme, len(stored), 31 + wrong) + stored)


def test_what_follows_the_end_of_a_compressed_chunk_is_refused() -> None:
    stored = lz4.frame.compress(b"some text") + b"more"
    with pytest.raises(XetError):
        take(header(1, len(stored), 9) + stored)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = lz4.frame.compress(bytes(60_000_000))
    stored = header(1, len(bomb), MAX_CHUNK) + bomb
    assert len(bomb) < 2 * MAX_CHUNK
    tracemalloc.start()
    try:
        with pytest.raises(XetError, match="length"):
            take(stored)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_many_small_bombs_end_at_the_size_of_a_xorb() -> None:
    chunk = compressed(bytes(MAX_CHUNK))
    taken = 0

    def write(pieces: list[xorbs.Piece]) -> None:
        nonlocal taken
        taken += sum(map(len, pieces))

    reader = XorbReader(write)
    with pytest.raises(XetError, match="more than"):
        feed_all(reader, [chunk] * 1000)
    assert taken == xorbs.MAX_CONTENT


def test_content_is_written_before_there_is_much_of_it() -> None:
    chunk = compressed(bytes(MAX_CHUNK))
    most = 0

    def write(pieces: list[xorbs.Piece]) -> None:
        nonlocal most
        most = max(most, sum(map(len, pieces)))

    XorbReader(write).feed(chunk * 500)
    assert most < (1 << 20) + MAX_CHUNK


def test_too_many_chunks_are_refused() -> None:
    reader = XorbReader(lambda _: None)
    chunk = plain(b"x")
    with pytest.raises(XetError, match="chunks"):
        reader.feed(chunk * (xorbs.MAX_CHUNKS + 1))


def test_an_endless_footer_is_refused() -> None:
    reader = XorbReader(lambda _: None)
    reader.feed(plain(b"x") + b"XETBLOB\1")
    with pytest.raises(XetError, match="more than"):
        feed_all(reader, [bytes(1 << 20)] * 100)


def test_another_hash_an_end_too_early_and_nothing_at_all() -> None:
    xorb = Xorb([b"one", b"two"])
    with pytest.raises(XetError, match="has hash"):
        take(xorb.stored, bytes(32))
    with pytest.raises(XetError, match="middle"):
        take(xorb.stored[:-1], xorb.hash)
    with pytest.raises(XetError, match="no chunks"):
        take(b"", bytes(32))


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), step=st.integers(1, 50))
def test_any_bytes_are_taken_or_refused(data: bytes, step: int) -> None:
    try:
        take(data, bytes(32), step)
    except XetError:
        return
    raise AssertionError("no bytes have this hash")


_DIGEST, _STORED = recorded_xorb()


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(_STORED) - 1), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.none(), st.integers(0, len(_STORED))),
)
def test_a_changed_real_xorb_is_the_same_or_refused(
    changes: list[tuple[int, int]], cut: int | None
) -> None:
    changed = bytearray(_STORED)
    for position, value in changes:
        changed[position] = value
    stored = bytes(changed[:cut])
    noise, text, floats = recorded_files()
    try:
        content = take(stored, _DIGEST, 10_000)
    except XetError:
        assert stored != _STORED
    else:  # some bits of LZ4 mean nothing
        assert content == floats + noise + text


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, MAX_CHUNK), min_size=1, max_size=20),
    segments=st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 2**50)), max_size=4
    ),
)
def test_an_index_is_read_as_it_was_written(
    lengths: list[int], segments: list[tuple[int, int, int]]
) -> None:
    random.seed(len(lengths))
    index = XorbIndex(
        random.randbytes(32 * len(lengths)),
        xorbs.array("I", lengths),
        tuple(Segment(start, end, "ab" * 32, offset) for start, end, offset in segments),
    )
    assert xorbs.decode_index(xorbs.encode_index(index)) == index
    assert index.offsets()[-1] == sum(lengths)
    assert hashing.xorb_hash(index.nodes()) == hashing.xorb_hash(index.nodes())


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_a_damaged_index_is_known_for_one(data: bytes) -> None:
    with pytest.raises(XetError):
        xorbs.decode_index(data)
