"""The Merkle tree of RFC 6962 section 2.1, kept as its right frontier.

A log of n entries needs at most log2(n) + 1 hashes in memory to append and to give its root.
"""

from __future__ import annotations

import hashlib

EMPTY_ROOT = hashlib.sha256(b"").digest()
_HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of one entry; the leading 0 keeps it apart from inner nodes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The roots of the perfect subtrees that a log of `size` entries consists of."""

    def __init__(self, size: int = 0, peaks: tuple[bytes, ...] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count():
            raise ValueError(f"{len(peaks)} subtrees cannot make a log of {size} entries")
        if any(len(peak) != _HASH_BYTES for peak in peaks):
            raise ValueError("a subtree's hash has 32 bytes")
        self.size = size
        self._peaks = list(peaks)  # largest subtree first

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The subtree hashes, largest subtree first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        rest = self.size
        while rest & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            rest >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Return the Merkle tree hash of everything appended so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent frontier of the same log."""
        return Frontier(self.size, self.peaks)
