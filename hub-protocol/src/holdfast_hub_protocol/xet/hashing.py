"""The hashes of the xet protocol: BLAKE3 with a key for each purpose, and trees of them.

Source: the specification in huggingface/xet-core, spec/hashing.md and spec/api.md.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from holdfast_hub_protocol.xet.errors import XetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_SIZE: Final = 32
_DATA_KEY: Final = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY: Final = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_RANGE_KEY: Final = bytes.fromhex(
    "7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3"
)
_FILE_KEY: Final = bytes(HASH_SIZE)
_MEAN_CHILDREN: Final = 4
_MOST_CHILDREN: Final = 2 * _MEAN_CHILDREN + 1
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_WORDS: Final = struct.Struct("<4Q")

# A node of a tree of hashes: its hash, and the length in bytes of what lies below it.
Node = tuple[bytes, int]


def to_hex(digest: bytes) -> str:
    """Return a hash as URLs and JSON write it: four little-endian words, each in hex."""
    return "{:016x}{:016x}{:016x}{:016x}".format(*_WORDS.unpack(digest))


def from_hex(text: str) -> bytes:
    """Return the hash that `to_hex` wrote; XetError for any other text."""
    if not _HEX.fullmatch(text):
        raise XetError("a hash has 64 lower-case hex digits")
    return _WORDS.pack(*(int(text[start : start + 16], 16) for start in range(0, 64, 16)))


def chunk_hash(content: bytes | bytearray | memoryview) -> bytes:
    """Return the hash of one chunk's content."""
    return blake3(content, key=_DATA_KEY).digest()


def range_hash(chunk_hashes: bytes | memoryview) -> bytes:
    """Return the hash by which a shard proves a run of chunks, given as one string of hashes."""
    return blake3(chunk_hashes, key=_RANGE_KEY).digest()


def xorb_hash(chunks: Sequence[Node]) -> bytes:
    """Return the hash of a xorb from its chunks' hashes and lengths."""
    return _root(chunks)


def file_hash(chunks: Sequence[Node]) -> bytes:
    """Return the hash of a file from its chunks' hashes and lengths; all zeros if it is empty."""
    return blake3(_root(chunks), key=_FILE_KEY).digest() if chunks else bytes(HASH_SIZE)


def _root(chunks: Sequence[Node]) -> bytes:
    """Merge runs of nodes into parents until one is left."""
    nodes = list(chunks)
    if not nodes:
        return bytes(HASH_SIZE)
    while len(nodes) > 1:
        parents = []
        start = 0
        while start < len(nodes):
            end = start + _run(nodes, start)
            parents.append(_parent(nodes[start:end]))
            start = end
        nodes = parents
    return nodes[0][0]


def _run(nodes: Sequence[Node], start: int) -> int:
    """Return how many nodes from `start` share a parent: the hashes themselves decide."""
    left = len(nodes) - start
    if left <= 2:
        return left
    most = min(_MOST_CHILDREN, left)
    for index in range(2, most):
        # The last word, little-endian, modulo 4: its lowest byte is enough.
        if nodes[start + index][0][24] % _MEAN_CHILDREN == 0:
            return index + 1
    return most


def _parent(nodes: Iterable[Node]) -> Node:
    lines = []
    total = 0
    for digest, length in nodes:
        lines.append(f"{to_hex(digest)} : {length}\n")
        total += length
    return blake3("".join(lines).encode(), key=_NODE_KEY).digest(), total
