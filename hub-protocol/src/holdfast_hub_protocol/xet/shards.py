"""Shards: lists of files, each as a sequence of runs of chunks in xorbs.

Source: huggingface/xet-core, spec/shard.md. A shard is read where it lies (a mapped file), file
by file, so that its size costs no memory; its footer and the xorbs that it describes are not
needed, since the xorbs themselves were taken apart on arrival.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast_hub_protocol.xet.errors import XetError
from holdfast_hub_protocol.xet.hashing import HASH_SIZE, to_hex
from holdfast_hub_protocol.xet.xorbs import MAX_CHUNKS, MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SHARD: Final = 96 << 20  # clients begin a new one at 64 MiB
ENTRY: Final = 48
_HEADER: Final = struct.Struct("<32sQQ")
_TAG: Final = b"HFRepoMetaData\0" + bytes.fromhex("5569 6745 6a7b 8157 83a5 bdd9 5ccd d14a a9")
_VERSION: Final = 2
_BLOCK: Final = struct.Struct("<32sIIII")  # the first entry of a file or a xorb
_TERM: Final = struct.Struct("<32sIIII")
_PROOF: Final = struct.Struct("<32s16x")
_END: Final = b"\xff" * HASH_SIZE
_WITH_PROOFS: Final = 1 << 31
_WITH_SHA256: Final = 1 << 30


class Term(NamedTuple):
    """A run of a xorb's chunks, from `start` to before `end`, of `length` bytes in all."""

    xorb: bytes
    length: int
    start: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    """A file of a shard; `sha256` is None where the client did not say it."""

    file_hash: bytes
    size: int
    term_count: int
    sha256: str | None
    _terms: memoryview
    _proofs: memoryview

    def terms(self) -> Iterator[tuple[Term, bytes | None]]:
        """Yield the runs that make up the file, each with the hash that proves it, if given."""
        proofs = (proof for (proof,) in _PROOF.iter_unpack(self._proofs))
        for xorb, _, length, start, end in _TERM.iter_unpack(self._terms):
            yield Term(xorb, length, start, end), next(proofs, None)


def check_shard(data: memoryview) -> int:
    """Return how many files a shard has; XetError unless all of it is well formed."""
    count = sum(1 for _ in read_files(data))
    _check_xorbs(data, _files_end(data))
    return count


def read_files(data: memoryview) -> Iterator[ShardFile]:
    """Yield the files of a shard; XetError where it is malformed."""
    position = _start(data)
    while True:
        digest, flags, count, _, _ = _block(data, position)
        position += ENTRY
        if digest == _END:
            return
        end = position + ENTRY * _entries(flags, count)
        if end > len(data):
            raise XetError("the shard ends in the middle of a file")
        yield _file(digest, flags, count, data[position:end])
        position = end


def _start(data: memoryview) -> int:
    if len(data) > MAX_SHARD:
        raise XetError(f"shard of more than {MAX_SHARD} bytes")
    if len(data) < _HEADER.size:
        raise XetError("the shard has no header")
    tag, version, _ = _HEADER.unpack_from(data)
    if tag != _TAG or version != _VERSION:
        raise XetError(f"not a shard of version {_VERSION}")
    return _HEADER.size


def _files_end(data: memoryview) -> int:
    position = _start(data)
    while True:
        digest, flags, count, _, _ = _block(data, position)
        position += ENTRY
        if digest == _END:
            return position
        position += ENTRY * _entries(flags, count)


def _block(data: memoryview, position: int) -> tuple[bytes, int, int, int, int]:
    if position + ENTRY > len(data):
        raise XetError("the shard ends without the mark of its end")
    return _BLOCK.unpack_from(data, position)


def _entries(flags: int, count: int) -> int:
    """Return how many entries follow the first one of a file."""
    return count * (2 if flags & _WITH_PROOFS else 1) + (1 if flags & _WITH_SHA256 else 0)


def _file(digest: bytes, flags: int, count: int, entries: memoryview) -> ShardFile:
    terms = entries[: ENTRY * count]
    proofs = entries[ENTRY * count : 2 * ENTRY * count] if flags & _WITH_PROOFS else entries[:0]
    size = 0
    for _, _, length, start, end in _TERM.iter_unpack(terms):
        if not start < end <= MAX_CHUNKS or not 0 < length <= MAX_CONTENT:
            raise XetError("a file of the shard has a run of chunks that no xorb can have")
        size += length
    # A SHA-256 stands there like every other hash: in little-endian words.
    sha256 = to_hex(bytes(entries[-ENTRY:][:HASH_SIZE])) if flags & _WITH_SHA256 else None
    return ShardFile(digest, size, count, sha256, terms, proofs)


def _check_xorbs(data: memoryview, position: int) -> None:
    while True:
        digest, _, count, _, _ = _block(data, position)
        position += ENTRY
        if digest == _END:
            return
        if count > MAX_CHUNKS:
            raise XetError(f"the shard describes a xorb of more than {MAX_CHUNKS} chunks")
        position += ENTRY * count
