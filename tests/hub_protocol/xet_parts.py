"""Xorbs and shards, made as clients make them, and what a real client sent."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import lz4.frame

from holdfast_hub_protocol.xet import hashing
from holdfast_hub_protocol.xet.chunks import Scheme, plain_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DATA = Path(__file__).parent / "xet" / "data"
SHARD_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
END = b"\xff" * 32 + bytes(16)


def recorded_files() -> list[bytes]:
    """Return what was uploaded when the recorded xorb and shard were sent, in the shard's order."""
    return [
        b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(150)) + b"end",
        b"".join(b"line %d of a text that compresses well\n" % number for number in range(500)),
        b"".join(struct.pack("<f", math.sin(number / 50) * 0.02) for number in range(12000)),
    ]


def recorded_xorb() -> tuple[bytes, bytes]:
    """Return the hash and the bytes of the recorded xorb."""
    path = next(DATA.glob("*.xorb"))
    return hashing.from_hex(path.stem), path.read_bytes()


def recorded_shard() -> bytes:
    """Return the recorded shard."""
    return (DATA / "client.shard").read_bytes()


def plain(content: bytes) -> bytes:
    """Return a chunk stored as it is."""
    return plain_header(len(content)) + content


def header(scheme: int, stored: int, length: int, version: int = 0) -> bytes:
    """Return any header of a chunk, right or wrong."""
    sizes = stored.to_bytes(3, "little"), length.to_bytes(3, "little")
    return bytes((version, *sizes[0], scheme, *sizes[1]))


def compressed(content: bytes, *, grouped: bool = False) -> bytes:
    """Return a chunk compressed as clients compress it."""
    source = b"".join(content[start::4] for start in range(4)) if grouped else content
    stored = lz4.frame.compress(source, store_size=False)
    scheme = Scheme.GROUPED_LZ4 if grouped else Scheme.LZ4
    return header(scheme, len(stored), len(content)) + stored


@dataclass
class Xorb:
    """A xorb of plain chunks."""

    contents: Sequence[bytes]

    @property
    def nodes(self) -> list[hashing.Node]:
        return [(hashing.chunk_hash(content), len(content)) for content in self.contents]

    @property
    def hash(self) -> bytes:
        return hashing.xorb_hash(self.nodes)

    @property
    def url_hash(self) -> str:
        return hashing.to_hex(self.hash)

    @property
    def stored(self) -> bytes:
        return b"".join(map(plain, self.contents))


@dataclass
class File:
    """A file of a shard: runs of chunks of xorbs."""

    runs: Sequence[tuple[Xorb, int, int]]
    sha256: str | None = None
    proofs: bool = True
    wrong_proof: bool = field(default=False)

    @property
    def content(self) -> bytes:
        return b"".join(b"".join(xorb.contents[start:end]) for xorb, start, end in self.runs)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def encode(self) -> bytes:
        nodes = [node for xorb, start, end in self.runs for node in xorb.nodes[start:end]]
        flags = (1 << 31 if self.proofs else 0) | (1 << 30 if self.sha256 != "" else 0)
        parts = [hashing.file_hash(nodes) + struct.pack("<II8x", flags, len(self.runs))]
        for xorb, start, end in self.runs:
            length = sum(map(len, xorb.contents[start:end]))
            parts.append(xorb.hash + struct.pack("<IIII", 0, length, start, end))
        for xorb, start, end in self.runs if self.proofs else ():
            proof = hashing.range_hash(b"".join(digest for digest, _ in xorb.nodes[start:end]))
            parts.append((bytes(32) if self.wrong_proof else proof) + bytes(16))
        if self.sha256 != "":
            digest = self.digest if self.sha256 is None else self.sha256
            parts.append(hashing.from_hex(digest) + bytes(16))
        return b"".join(parts)


def shard(files: Iterable[File], xorbs: Iterable[Xorb] = ()) -> bytes:
    """Return a shard as clients send it, without a footer."""
    parts = [SHARD_TAG + struct.pack("<QQ", 2, 0)]
    parts += [file.encode() for file in files]
    parts.append(END)
    for xorb in xorbs:
        size = sum(map(len, xorb.contents))
        parts.append(xorb.hash + struct.pack("<IIII", 0, len(xorb.contents), size, size))
        offset = 0
        for digest, length in xorb.nodes:
            parts.append(digest + struct.pack("<II8x", offset, length))
            offset += length
    parts.append(END)
    return b"".join(parts)
