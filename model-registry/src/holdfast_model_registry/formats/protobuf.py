"""Protobuf messages without their schema: whether the outermost fields fit one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FIELDS: Final = 1_000_000
# Field number: wire type. The outermost message of each format.
SENTENCEPIECE: Final[Mapping[int, int]] = {1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
ONNX: Final[Mapping[int, int]] = {
    1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2,
}  # fmt: skip


def fits(file: BinaryIO, size: int, fields: Mapping[int, int]) -> bool:
    """Tell whether the whole file is a sequence of such fields, each within it."""
    position = 0
    for _ in range(MAX_FIELDS):
        if position == size:
            return size > 0
        tag, position = _varint(file, position)
        if tag is None or fields.get(tag >> 3) != tag & 7:
            return False
        length, position = _varint(file, position)
        if length is None:
            return False
        if tag & 7 == 2:
            position += length
            if position > size:
                return False
            file.seek(position)
    return False


def _varint(file: BinaryIO, position: int) -> tuple[int | None, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None, position
        position += 1
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value, position
    return None, position
