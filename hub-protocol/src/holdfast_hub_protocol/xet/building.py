"""Building files from xorbs: what a shard lists becomes plain blobs, checked by SHA-256.

Files are built when their shard comes, not when they are committed: the client waits for the
answer to a shard without a time limit and shows what is wrong with it, while a commit must be
quick and holds the branch. It also means that a commit takes xet and LFS uploads alike.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.blobs import DigestMismatchError
from holdfast_hub_protocol.xet.chunks import MAX_CHUNK
from holdfast_hub_protocol.xet.errors import MissingXorbError, WrongContentError, XetError
from holdfast_hub_protocol.xet.hashing import chunk_hash, range_hash, to_hex
from holdfast_hub_protocol.xet.xorbs import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast_hub_protocol.blob_storage import BlobStorage, Incoming
    from holdfast_hub_protocol.blobs import Content
    from holdfast_hub_protocol.xet.shards import ShardFile, Term
    from holdfast_hub_protocol.xet.staged import Epoch
    from holdfast_hub_protocol.xet.xorbs import XorbIndex

_READ_AT_ONCE: Final = 1 << 20
_INDEXES: Final = 16  # about 100 KB each
_NOTED_AT_ONCE: Final = 4096


def note(epoch: Epoch, files: Iterable[tuple[ShardFile, str]]) -> None:
    """Have later uploads find chunks in the blobs of files, and drop xorbs that are all there."""
    runs: dict[bytes, list[Segment]] = defaultdict(list)
    number = 0
    for file, sha256 in files:
        offset = 0
        for term, _ in file.terms():
            runs[term.xorb].append(Segment(term.start, term.end, sha256, offset))
            offset += term.length
            number += 1
            if number % _NOTED_AT_ONCE == 0:
                epoch.note(runs)
                runs.clear()
    epoch.note(runs)


class Builder:
    """Builds files of a shard, one at a time."""

    def __init__(self, epoch: Epoch, blobs: BlobStorage, progress: Callable[[int], None]) -> None:
        self._epoch = epoch
        self._blobs = blobs
        self._progress = progress
        self._indexes: dict[bytes, XorbIndex] = {}
        self._offsets: dict[bytes, list[int]] = {}
        self._buffer = memoryview(bytearray(MAX_CHUNK))

    def check(self, file: ShardFile) -> None:
        """Raise XetError unless every run of chunks is here and is the one that is meant."""
        for term, proof in file.terms():
            index = self._index(term.xorb)
            offsets = self._offsets[term.xorb]
            if term.end > len(index) or offsets[term.end] - offsets[term.start] != term.length:
                raise XetError(f"a file names chunks that xorb {to_hex(term.xorb)} does not have")
            if proof is not None and range_hash(index.range_hashes(term.start, term.end)) != proof:
                raise XetError(f"a file names other chunks than xorb {to_hex(term.xorb)} has")

    def build(self, file: ShardFile) -> Content:
        """Make the file a blob; XetError, and no blob, if it is not what the shard says."""
        with self._blobs.receive(file.size) as incoming:
            for term, _ in file.terms():
                self._copy(term, incoming)
            try:
                content = incoming.keep(file.sha256)
            except DigestMismatchError as error:
                raise WrongContentError(f"a file is not what the shard says: {error}") from error
        return content

    def find(self, file: ShardFile, sha256: str) -> bool:
        """Tell whether a blob is the file, chunk for chunk; if so, it need not be built again."""
        try:
            with _in_blob(self._blobs, sha256) as descriptor:
                for content, expected in self._chunks(file, descriptor):
                    if chunk_hash(content) != expected:
                        return False
        except MissingXorbError:
            return False
        self._progress(file.size)
        return True

    def _chunks(self, file: ShardFile, descriptor: int) -> Iterator[tuple[memoryview, bytes]]:
        """Yield the bytes of a blob where the file's chunks should be, and what they hash to."""
        offset = 0
        for term, _ in file.terms():
            index = self._index(term.xorb)
            for chunk in range(term.start, term.end):
                buffer = self._buffer[: index.lengths[chunk]]
                if os.preadv(descriptor, [buffer], offset) != len(buffer):
                    raise MissingXorbError("the blob is shorter than the file")
                yield buffer, index.range_hashes(chunk, chunk + 1)
                offset += len(buffer)

    def _copy(self, term: Term, incoming: Incoming) -> None:
        with ExitStack() as opened:
            for descriptor, offset, length in self._sources(term, opened):
                self._copy_run(descriptor, offset, length, incoming)

    def _sources(self, term: Term, opened: ExitStack) -> Iterator[tuple[int, int, int]]:
        """Yield where a run of chunks lies: open files, with an offset and a length each."""
        offsets = self._offsets_of(term.xorb)
        staged = self._epoch.open_data(term.xorb)
        if staged is not None:
            opened.callback(os.close, staged)
            yield staged, offsets[term.start], term.length
            return
        # Another shard may have moved it to a blob since the index was read.
        position = term.start
        for segment in self._epoch.index(term.xorb).segments:
            if segment.start <= position < segment.end:
                end = min(segment.end, term.end)
                where = segment.offset + offsets[position] - offsets[segment.start]
                with _in_blob(self._blobs, segment.sha256) as descriptor:
                    yield descriptor, where, offsets[end] - offsets[position]
                position = end
            if position == term.end:
                return
        raise MissingXorbError(f"xorb {to_hex(term.xorb)} is not here any more")

    def _copy_run(self, descriptor: int, offset: int, length: int, incoming: Incoming) -> None:
        while length:
            # Memory of its own each time: it is hashed while the next is read.
            piece = os.pread(descriptor, min(length, _READ_AT_ONCE), offset)
            if not piece:
                raise MissingXorbError("the content of a xorb is cut off")
            incoming.write(piece)
            self._progress(len(piece))
            offset += len(piece)
            length -= len(piece)

    def _index(self, xorb: bytes) -> XorbIndex:
        if xorb not in self._indexes:
            if len(self._indexes) == _INDEXES:
                self._indexes.clear()
                self._offsets.clear()
            self._indexes[xorb] = self._epoch.index(xorb)
            self._offsets[xorb] = self._indexes[xorb].offsets()
        return self._indexes[xorb]

    def _offsets_of(self, xorb: bytes) -> list[int]:
        self._index(xorb)
        return self._offsets[xorb]


@contextmanager
def _in_blob(blobs: BlobStorage, sha256: str) -> Iterator[int]:
    try:
        file = blobs.open(sha256)
    except FileNotFoundError:
        raise MissingXorbError("a blob with chunks of this upload is not here any more") from None
    with file:
        yield file.fileno()
