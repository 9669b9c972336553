"""Safetensors, read strictly: a header that says where every byte belongs, and nothing else.

The format: 8 bytes little-endian header length N, N bytes of JSON, then the data. JSON:
{"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {text: text}}.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from holdfast_model_registry.formats.observation import FormatError
from holdfast_model_registry.formats.strict_json import read_object, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA: Final = "__metadata__"
# Models of the largest kind have headers of a few MB; the format would allow 100.
MAX_HEADER_SIZE: Final = 16 << 20
MAX_TENSOR_SIZE: Final = 1 << 63
MAX_DIMENSIONS: Final = 64
# Bits of one element. What is not here is not known to those who load it either.
DTYPES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
}
_KEYS: Final = {"dtype", "shape", "data_offsets"}
LARGE: Final = 1 << 20
# A header of 16 MB takes ten times that as Python objects: one at a time.
one_large_header: Final = threading.Lock()


class Tensor(NamedTuple):
    """One tensor: what it holds and where its bytes lie, counted from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header in which everything agrees."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of a file of `size` bytes; FormatError says what is wrong with it."""
    length_bytes = file.read(8)
    if len(length_bytes) < 8:
        raise FormatError("shorter than the length of a header")
    length = int.from_bytes(length_bytes, "little")
    if length > size - 8:
        raise FormatError(f"its header of {length} bytes would end past the file")
    if length > MAX_HEADER_SIZE:
        raise FormatError(f"its header has {length} bytes, more than {MAX_HEADER_SIZE}")
    text = file.read(length)
    if len(text) != length:
        raise FormatError("it ends within its header")
    if not text.startswith(b"{"):
        raise FormatError("its header does not begin with {")
    if length <= LARGE:
        return _header(text, size - 8 - length)
    with one_large_header:
        return _header(text, size - 8 - length)


def _header(text: bytes, data_size: int) -> Header:
    document = read_object(text, "the header")
    metadata = _metadata(document.pop(METADATA, {}))
    tensors = {name: _tensor(name, document[name]) for name in document}
    _cover(tensors, data_size)
    return Header(tensors, metadata)


def _metadata(document: object) -> dict[str, str]:
    if not isinstance(document, dict):
        raise FormatError(f"{METADATA} is not an object")
    for key, value in document.items():
        if not isinstance(value, str):
            raise FormatError(f"{METADATA} holds {shown(key)}, which is not text")
    return document


def _tensor(name: str, document: Any) -> Tensor:  # noqa: ANN401 - JSON from a stranger
    if not isinstance(document, dict) or set(document) != _KEYS:
        raise FormatError(f"tensor {shown(name)} needs dtype, shape and data_offsets, and no more")
    dtype, shape, offsets = document["dtype"], document["shape"], document["data_offsets"]
    bits = DTYPES.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise FormatError(f"tensor {shown(name)} has the unknown dtype {shown(str(dtype))}")
    if not _whole_numbers(shape) or len(shape) > MAX_DIMENSIONS:
        raise FormatError(f"the shape of tensor {shown(name)} is not a list of whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise FormatError(f"the data_offsets of tensor {shown(name)} are not two whole numbers")
    begin, end = offsets
    if begin > end:
        raise FormatError(f"tensor {shown(name)} ends before it begins")
    wanted = math.prod(shape) * bits
    if wanted % 8 or wanted >= MAX_TENSOR_SIZE:
        raise FormatError(f"tensor {shown(name)} has no size in whole bytes")
    if wanted // 8 != end - begin:
        raise FormatError(
            f"tensor {shown(name)} has {end - begin} bytes, its dtype and shape {wanted // 8}"
        )
    return Tensor(dtype, tuple(shape), begin, end)


def _whole_numbers(value: object) -> bool:
    # bool is an int to Python, and a number past 63 bits is none to anybody else
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < MAX_TENSOR_SIZE for item in value
    )


def _cover(tensors: Mapping[str, Tensor], data_size: int) -> None:
    """Check that the tensors cover the data: from its first byte to its last, each once."""
    reached = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin < reached:
            raise FormatError(f"tensor {shown(name)} overlaps another")
        if tensor.begin > reached:
            raise FormatError(f"{tensor.begin - reached} bytes before {shown(name)} are nobody's")
        reached = tensor.end
    if reached > data_size:
        raise FormatError(f"its tensors end {reached - data_size} bytes past the file")
    if reached < data_size:
        raise FormatError(f"{data_size - reached} bytes after the last tensor are nobody's")
