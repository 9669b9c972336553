"""Xorbs: runs of chunks that clients upload, taken apart while they come in.

Source: huggingface/xet-core, spec/xorb.md. What a client writes after the chunks (a footer with
their hashes) is passed over: every hash is computed here, from the content.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.xet.chunks import HEADER_SIZE, read_header, unpack
from holdfast_hub_protocol.xet.errors import XetError
from holdfast_hub_protocol.xet.hashing import HASH_SIZE, chunk_hash, to_hex, xorb_hash

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_hub_protocol.xet.hashing import Node

MAX_CHUNKS: Final = 8192
MAX_CONTENT: Final = 64 << 20
# Headers of all chunks, and a footer that repeats each chunk's hash and two offsets.
MAX_STORED: Final = MAX_CONTENT + MAX_CHUNKS * (HEADER_SIZE + HASH_SIZE + 8) + 4096
_FOOTER: Final = b"XETBLOB"
# A piece of compressed chunks can hold two hundred times its length.
_WRITTEN_AT_ONCE: Final = 1 << 20

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Segment:
    """A run of a xorb's chunks that stands in a blob: chunks from `start` to before `end`."""

    start: int
    end: int
    sha256: str
    offset: int


@dataclass(frozen=True)
class XorbIndex:
    """The chunks of a xorb: their hashes as one string, their lengths in bytes, in order.

    `segments` says which of them are in blobs; the others are in the staged content.
    """

    hashes: bytes
    lengths: array[int]
    segments: tuple[Segment, ...] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    def nodes(self) -> list[Node]:
        """Return the chunks as the leaves of a tree of hashes."""
        return [
            (self.hashes[HASH_SIZE * index : HASH_SIZE * (index + 1)], length)
            for index, length in enumerate(self.lengths)
        ]

    def range_hashes(self, start: int, end: int) -> bytes:
        """Return the hashes of the chunks from `start` to before `end`, as one string."""
        return self.hashes[HASH_SIZE * start : HASH_SIZE * end]

    def offsets(self) -> list[int]:
        """Return where each chunk begins in the content, and where the last one ends."""
        return list(accumulate(self.lengths, initial=0))


class XorbReader:
    """Takes a xorb in pieces of any size; `write` gets the content of its chunks, in order.

    Holds one piece, one incomplete chunk and a megabyte of content at a time, and copies what is
    not compressed only where a chunk begins in one piece and ends in another.
    """

    def __init__(self, write: Callable[[list[Piece]], None]) -> None:
        self._write = write
        self._begun = bytearray()  # of a chunk whose end has not come
        self._received = 0
        self._content = 0
        self._hashes = bytearray()
        self._lengths = array("I")
        self._contents: list[Piece] = []
        self._unwritten = 0
        self._in_footer = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece; XetError if it cannot be part of a xorb."""
        self._received += len(piece)
        if self._received > MAX_STORED:
            raise XetError(f"xorb of more than {MAX_STORED} bytes")
        buffer = memoryview(piece)
        start = self._go_on(buffer) if self._begun else 0
        while not self._in_footer and len(buffer) - start >= HEADER_SIZE:
            end = start + self._length(buffer[start : start + HEADER_SIZE])
            if self._in_footer or end > len(buffer):
                break
            self._take(buffer[start:end])
            start = end
        if not self._in_footer:
            self._begun += buffer[start:]
        self._flush()

    def _go_on(self, buffer: memoryview) -> int:
        """Complete the chunk that was begun; return how much of the piece belongs to it."""
        used = max(0, min(HEADER_SIZE - len(self._begun), len(buffer)))
        self._begun += buffer[:used]
        if len(self._begun) < HEADER_SIZE:
            return used
        needed = self._length(memoryview(bytes(self._begun[:HEADER_SIZE]))) - len(self._begun)
        if self._in_footer:
            self._begun.clear()
            return used
        part = buffer[used : used + needed]
        self._begun += part
        if len(part) == needed:
            whole, self._begun = self._begun, bytearray()
            self._take(memoryview(whole))
        return used + len(part)

    def _length(self, header: memoryview) -> int:
        """Return how long the chunk with this header is, header and all; 0 if it is the footer."""
        if bytes(header[: len(_FOOTER)]) == _FOOTER:
            self._in_footer = True
            return 0
        return HEADER_SIZE + read_header(header).stored

    def _take(self, chunk: memoryview) -> None:
        content = unpack(read_header(chunk), chunk[HEADER_SIZE:])
        self._content += len(content)
        if self._content > MAX_CONTENT or len(self._lengths) == MAX_CHUNKS:
            raise XetError(f"xorb of more than {MAX_CONTENT} bytes or {MAX_CHUNKS} chunks")
        self._hashes += chunk_hash(content)
        self._lengths.append(len(content))
        self._contents.append(content)
        self._unwritten += len(content)
        if self._unwritten >= _WRITTEN_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._write(self._contents)
        self._contents, self._unwritten = [], 0

    def finish(self, expected: bytes) -> XorbIndex:
        """Return the index; XetError if the xorb is cut off, empty or not the one expected."""
        if self._begun:
            raise XetError("the xorb ends in the middle of a chunk")
        if not self._lengths:
            raise XetError("the xorb has no chunks")
        index = XorbIndex(bytes(self._hashes), self._lengths)
        found = xorb_hash(index.nodes())
        if found != expected:
            raise XetError(f"the xorb has hash {to_hex(found)}, not {to_hex(expected)}")
        return index


_INDEX: Final = struct.Struct("<8sII")
_SEGMENT: Final = struct.Struct("<II32sQ")
_MAGIC: Final = b"HFXORB1\0"


def encode_index(index: XorbIndex) -> bytes:
    """Return an index as its file holds it."""
    lengths = struct.pack(f"<{len(index)}I", *index.lengths)
    segments = (
        _SEGMENT.pack(segment.start, segment.end, bytes.fromhex(segment.sha256), segment.offset)
        for segment in index.segments
    )
    head = _INDEX.pack(_MAGIC, len(index), len(index.segments))
    return b"".join((head, index.hashes, lengths, *segments))


def decode_index(data: bytes) -> XorbIndex:
    """Return the index that `encode_index` wrote; XetError for any other bytes."""
    if len(data) < _INDEX.size:
        raise XetError("the index of a staged xorb is damaged")
    magic, count, segment_count = _INDEX.unpack_from(data)
    hashes_end = _INDEX.size + HASH_SIZE * count
    lengths_end = hashes_end + 4 * count
    if magic != _MAGIC or len(data) != lengths_end + _SEGMENT.size * segment_count:
        raise XetError("the index of a staged xorb is damaged")
    segments = tuple(
        Segment(start, end, sha256.hex(), offset)
        for start, end, sha256, offset in _SEGMENT.iter_unpack(data[lengths_end:])
    )
    lengths = array("I", struct.unpack(f"<{count}I", data[hashes_end:lengths_end]))
    return XorbIndex(data[_INDEX.size : hashes_end], lengths, segments)
