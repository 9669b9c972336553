"""GGUF, as far as a header can be wrong: counts, lengths, types and offsets within the file."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, BinaryIO, Final

from holdfast_model_registry.formats.observation import FormatError
from holdfast_model_registry.formats.strict_json import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC: Final = b"GGUF"
MAX_HEADER_SIZE: Final = 256 << 20
MAX_ITEMS: Final = 2_000_000  # strings of a vocabulary, mostly
MAX_DEPTH: Final = 4
_ALIGNMENT: Final = "general.alignment"
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, int]] = {
    0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8,
}  # fmt: skip
# ggml's own numbers: elements of a block, bytes of a block.
_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


class _Reader:
    """Reads numbers and strings forward, never past the header's bound."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.left = min(size, MAX_HEADER_SIZE)
        self.position = 0
        self.items = 0

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise FormatError("a length in its header points past the file")
        self.left -= count
        self.position += count
        found = self.file.read(count)
        if len(found) != count:
            raise FormatError("it ends within its header")
        return found

    def number(self, layout: str) -> int:
        return int(struct.unpack(f"<{layout}", self.take(struct.calcsize(layout)))[0])

    def text(self, most: int) -> str:
        length = self.number("Q")
        if length > most:
            raise FormatError(f"a name in its header has {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def counted(self) -> None:
        self.items += 1
        if self.items > MAX_ITEMS:
            raise FormatError(f"its header has more than {MAX_ITEMS} items")


def check_header(file: BinaryIO, size: int) -> None:
    """Raise FormatError unless the header and the tensors that it describes fit the file."""
    reader = _Reader(file, size)
    if reader.take(4) != MAGIC:
        raise FormatError("it does not begin with GGUF")
    version = reader.number("I")
    if version not in {2, 3}:
        raise FormatError(f"version {version} is not one of 2 and 3")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    alignment = 32
    for _ in range(pairs):
        reader.counted()
        key = reader.text(1 << 16)
        kind = reader.number("I")
        value = _value(reader, kind, 0)
        if key == _ALIGNMENT:
            alignment = int.from_bytes(value, "little") if kind in {4, 10} else 0
    if not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise FormatError(f"{_ALIGNMENT} is not a power of two")
    spans = [_tensor(reader, alignment) for _ in range(_plausible(tensors, reader))]
    start = -(-reader.position // alignment) * alignment
    reached = 0
    for begin, length, name in sorted(spans):
        if begin < reached:
            raise FormatError(f"tensor {shown(name)} overlaps another")
        reached = begin + length
    if spans and start + reached > size:
        raise FormatError(f"its tensors end {start + reached - size} bytes past the file")


def _plausible(count: int, reader: _Reader) -> int:
    if count > reader.left:
        raise FormatError(f"it claims {count} tensors, more than it has bytes")
    return count


def _value(reader: _Reader, kind: int, depth: int) -> bytes:
    """Read past a value and return the bytes of a number."""
    if kind in _SCALARS:
        return reader.take(_SCALARS[kind])
    if kind == _STRING:
        reader.take(reader.number("Q"))
    elif kind == _ARRAY and depth < MAX_DEPTH:
        inner, count = reader.number("I"), reader.number("Q")
        if inner in _SCALARS:
            reader.take(_SCALARS[inner] * count)
        else:
            for _ in range(count):
                reader.counted()
                _value(reader, inner, depth + 1)
    else:
        raise FormatError(f"type {kind} of a value is unknown, or nested too deeply")
    return b""


def _tensor(reader: _Reader, alignment: int) -> tuple[int, int, str]:
    reader.counted()
    name = reader.text(1 << 10)
    dimensions = reader.number("I")
    if dimensions > 8:
        raise FormatError(f"tensor {shown(name)} has {dimensions} dimensions")
    shape = [reader.number("Q") for _ in range(dimensions)]
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in _BLOCKS:
        raise FormatError(f"tensor {shown(name)} has the unknown type {kind}")
    elements, block = _BLOCKS[kind]
    count = math.prod(shape)
    if count % elements or count >= 1 << 63:
        raise FormatError(f"tensor {shown(name)} has no whole number of blocks")
    if offset % alignment:
        raise FormatError(f"tensor {shown(name)} is not aligned to {alignment} bytes")
    return offset, count // elements * block, name
