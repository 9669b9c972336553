"""Git's pack files: many objects in one file, and the index by which git finds them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TYPES: Final = {"commit": 1, "tree": 2, "blob": 3}
_LARGE: Final = 1 << 31  # offsets from here on stand in a table of their own


class PackWriter:
    """Writes `pack-….pack` and `pack-….idx` into a folder; each object once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "incoming.pack"
        self._file = self._path.open("wb")
        self._objects: dict[str, tuple[int, int]] = {}  # id -> offset, CRC-32
        self._file.write(_header(0))

    def __contains__(self, oid: str) -> bool:
        return oid in self._objects

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, kind: str, oid: str, size: int, content: Iterable[bytes]) -> None:
        """Write one object unless it is there; `size` is the length of its content."""
        if oid in self._objects:
            return
        offset, checksum = self._file.tell(), 0
        compressor = zlib.compressobj()
        for data in (
            _object_header(_TYPES[kind], size),
            *(compressor.compress(piece) for piece in content),
            compressor.flush(),
        ):
            self._file.write(data)
            checksum = zlib.crc32(data, checksum)
        self._objects[oid] = offset, checksum

    def finish(self) -> None:
        """Give both files their names; before this git sees nothing."""
        self._file.seek(0)
        self._file.write(_header(len(self._objects)))
        self._file.close()
        digest = _sha1()
        with self._path.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
        with self._path.open("ab") as file:
            file.write(digest.digest())
        name = f"pack-{digest.hexdigest()}"
        (self._folder / f"{name}.idx").write_bytes(self._index(digest.digest()))
        self._path.rename(self._folder / f"{name}.pack")

    def _index(self, pack_digest: bytes) -> bytes:
        ordered = sorted((bytes.fromhex(oid), *place) for oid, place in self._objects.items())
        counts = [0] * 256
        for oid, _, _ in ordered:
            counts[oid[0]] += 1
        large = [offset for _, offset, _ in ordered if offset >= _LARGE]
        places = {offset: _LARGE | number for number, offset in enumerate(large)}
        index = b"".join(
            (
                b"\xfftOc" + struct.pack(">I", 2),
                b"".join(struct.pack(">I", total) for total in accumulate(counts)),
                b"".join(oid for oid, _, _ in ordered),
                b"".join(struct.pack(">I", checksum) for _, _, checksum in ordered),
                b"".join(struct.pack(">I", places.get(each, each)) for _, each, _ in ordered),
                b"".join(struct.pack(">Q", offset) for offset in large),
                pack_digest,
            )
        )
        digest = _sha1()
        digest.update(index)
        return index + digest.digest()


def _header(count: int) -> bytes:
    return b"PACK" + struct.pack(">II", 2, count)


def _object_header(kind: int, size: int) -> bytes:
    """Return the type and the size, seven bits at a time, of which the first byte has four."""
    header = bytearray()
    byte, size = kind << 4 | size & 0x0F, size >> 4
    while size:
        header.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    header.append(byte)
    return bytes(header)


def _sha1() -> hashlib._Hash:
    return hashlib.sha1(usedforsecurity=False)  # git's choice, for its own checks
