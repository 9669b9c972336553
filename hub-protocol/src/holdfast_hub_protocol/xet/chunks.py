"""Chunks: a header of eight bytes and a piece of a file, plain or compressed.

Source: huggingface/xet-core, spec/xorb.md. Nothing here allocates more than a few times the
longest chunk, whatever the header or the compressed bytes say.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import lz4.frame  # type: ignore[import-untyped] # it brings no types

from holdfast_hub_protocol.xet.errors import XetError

HEADER_SIZE: Final = 8
MAX_CHUNK: Final = 128 << 10
# Clients store a chunk plain when compressing makes it no smaller.
_MAX_STORED: Final = 2 * MAX_CHUNK
_VERSION: Final = 0


class Scheme(IntEnum):
    """How a chunk is compressed."""

    PLAIN = 0
    LZ4 = 1
    GROUPED_LZ4 = 2  # every fourth byte together, then LZ4: for floating-point numbers


@dataclass(frozen=True)
class ChunkHeader:
    """What stands before each chunk in a xorb: lengths in bytes."""

    scheme: Scheme
    stored: int
    length: int


def read_header(buffer: bytes | bytearray | memoryview, start: int = 0) -> ChunkHeader:
    """Read the header at `start`, where eight bytes are; XetError if it is not one."""
    version, scheme = buffer[start], buffer[start + 4]
    stored = int.from_bytes(buffer[start + 1 : start + 4], "little")
    length = int.from_bytes(buffer[start + 5 : start + 8], "little")
    if version != _VERSION:
        raise XetError(f"chunk header of version {version}, not {_VERSION}")
    if scheme > Scheme.GROUPED_LZ4:
        raise XetError(f"chunk compressed by unknown scheme {scheme}")
    if not 0 < length <= MAX_CHUNK or not 0 < stored <= _MAX_STORED:
        raise XetError(f"chunk of {length} bytes ({stored} stored); at most {MAX_CHUNK} are taken")
    if scheme == Scheme.PLAIN and stored != length:
        raise XetError("plain chunk whose two lengths differ")
    return ChunkHeader(Scheme(scheme), stored, length)


def plain_header(length: int) -> bytes:
    """Return the header of a chunk that is stored as it is."""
    size = length.to_bytes(3, "little")
    return bytes((_VERSION, *size, Scheme.PLAIN, *size))


def unpack(header: ChunkHeader, stored: memoryview) -> memoryview | bytes | bytearray:
    """Return a chunk's content, without a copy if it is plain; XetError if it does not fit."""
    if header.scheme == Scheme.PLAIN:
        return stored
    content = _decompressed(stored, header.length)
    return _regrouped(content) if header.scheme == Scheme.GROUPED_LZ4 else content


def _decompressed(stored: memoryview, length: int) -> bytes:
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        # One byte more than is allowed shows that there would be more; no more is ever made.
        content: bytes = decompressor.decompress(stored, max_length=length + 1)
    except (RuntimeError, ValueError, EOFError, MemoryError) as error:
        raise XetError(f"chunk is not LZ4: {error}") from error
    if len(content) != length or not decompressor.eof or decompressor.unused_data:
        raise XetError("compressed chunk does not have the length that its header says")
    return content


def _regrouped(grouped: bytes) -> bytearray:
    """Put bytes back that were grouped by their position modulo four."""
    length = len(grouped)
    content = bytearray(length)
    start = 0
    for position in range(4):
        end = start + (length - position + 3) // 4
        content[position::4] = grouped[start:end]
        start = end
    return content
