"""HTTP byte ranges, the single ones that clients of a hub send (RFC 9110, section 14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SINGLE: Final = re.compile(r"bytes=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.ASCII)


class UnsatisfiableRangeError(Exception):
    """A range that begins past the end: 416."""


@dataclass(frozen=True)
class ByteRange:
    """Bytes from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.last - self.first + 1


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Read a Range header for a file of `size` bytes.

    None means the whole file: no header, or one that the RFC lets a server ignore (another
    unit, several ranges, malformed). Raises UnsatisfiableRangeError past the end.
    """
    match = _SINGLE.fullmatch(header) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first_text, last_text = match.groups()
    if not first_text:
        wanted = min(int(last_text), size)
        if wanted == 0:
            raise UnsatisfiableRangeError
        return ByteRange(size - wanted, size - 1)
    first = int(first_text)
    if last_text and int(last_text) < first:
        return None
    if first >= size:
        raise UnsatisfiableRangeError
    last = min(int(last_text), size - 1) if last_text else size - 1
    return ByteRange(first, last)
