"""Reads of very large files: clients refuse to fetch them otherwise (over 50 GB by default).

A file lies here as it is. To clients it is presented as xorbs of 64 MiB, of plain chunks of
128 KiB, cut at fixed places: which bytes of a xorb are which bytes of the file is arithmetic,
and nothing is stored or computed ahead. The id of a file is its SHA-256, that of a xorb is made
from it; they name content for good, but are not hashes of trees of chunks.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse, StreamingResponse

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.identifiers import is_sha256
from holdfast_hub_protocol.ranges import ByteRange, UnsatisfiableRangeError, parse_range
from holdfast_hub_protocol.xet.chunks import HEADER_SIZE, MAX_CHUNK, plain_header
from holdfast_hub_protocol.xet.tokens import address, claims_of, ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit
    from holdfast_hub_protocol.records import Commit, Entry

    _Fetches = Callable[[list["_Part"]], dict[str, Any]]

CHUNKS: Final = 512  # in each xorb but the last
XORB: Final = CHUNKS * MAX_CHUNK  # bytes of the file in a xorb
_STORED: Final = HEADER_SIZE + MAX_CHUNK
_CHUNKS_AT_ONCE: Final = 8
_RANGE: Final = re.compile(r"bytes=(\d{1,20})-(\d{0,20})", re.ASCII)
_INDEX: Final = re.compile(r"\d{1,9}", re.ASCII)


def is_offered(visit: RepositoryVisit, entry: Entry) -> bool:
    """Tell whether clients are told that they can read a file this way."""
    return entry.is_lfs and entry.size > visit.hub.xet_reads_over


def read_headers(visit: RepositoryVisit, commit: Commit, entry: Entry) -> dict[str, str]:
    """Return the headers by which clients learn it; none for all but very large files."""
    if not is_offered(visit, entry) or entry.sha256 is None:
        return {}
    repository = visit.repository.id
    route = f"{visit.origin}/api/{repository.kind}s/{repository}/xet-read-token/{commit.oid}"
    return {
        "X-Xet-Hash": entry.sha256,
        "X-Xet-Refresh-Route": route,
        "Link": f'<{route}>; rel="xet-auth"',
    }


def tree_fields(visit: RepositoryVisit, entry: Entry) -> dict[str, str]:
    """Return what a tree says of it; nothing for all but very large files."""
    return {"xetHash": entry.sha256} if is_offered(visit, entry) and entry.sha256 else {}


def reconstruction(visit: RepositoryVisit) -> Response:
    """Answer with the xorbs of a file or a range of it, and where to get them."""
    return _reconstruction(visit, _old_fetches)


def reconstruction_2(visit: RepositoryVisit) -> Response:
    """Do as `reconstruction`, in the second version's form."""
    return _reconstruction(visit, _new_fetches)


def read_xorb(visit: RepositoryVisit) -> Response:
    """Send a range of a xorb, made from the file as it is sent."""
    claims = claims_of(visit)
    _commit(visit, claims)
    sha256, size = str(claims["sha256"]), int(claims["size"])
    index = _number(visit.parameter("index"))
    if index * XORB >= size:
        raise errors.HubError(404, "The file has no such part")
    xorb = _Xorb(sha256, index, min(XORB, size - index * XORB))
    try:
        wanted = parse_range(visit.request.headers.get("range"), xorb.stored)
    except UnsatisfiableRangeError:
        raise _unsatisfiable(xorb.stored) from None
    whole = ByteRange(0, xorb.stored - 1)
    visit.details |= {"sha256": sha256, "size": size, "part": index}
    descriptor = _open(visit, sha256, size)
    headers = {"Content-Length": str((wanted or whole).length), "Cache-Control": "private"}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {wanted.first}-{wanted.last}/{xorb.stored}"
    return StreamingResponse(
        _stored(descriptor, xorb, wanted or whole),
        200 if wanted is None else 206,
        headers,
        media_type="application/octet-stream",
    )


@dataclass(frozen=True)
class _Xorb:
    """The piece of a file that is presented as one xorb; `length` bytes of the file."""

    sha256: str
    index: int
    length: int

    @property
    def id(self) -> str:
        """What names it to clients, which keep xorbs by their names."""
        return hashlib.sha256(f"part {self.index} of {self.sha256}".encode()).hexdigest()

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return -(-self.length // MAX_CHUNK)

    @property
    def stored(self) -> int:
        """How long it is with the headers of its chunks."""
        return self.length + HEADER_SIZE * self.chunks


@dataclass(frozen=True)
class _Part:
    """The chunks of a xorb, from `start` to before `end`, that a range of a file needs."""

    xorb: _Xorb
    start: int
    end: int
    url: str

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return min(self.end * MAX_CHUNK, self.xorb.length) - self.start * MAX_CHUNK

    @property
    def chunks(self) -> dict[str, int]:
        """As JSON has it: the end is not part of it."""
        return {"start": self.start, "end": self.end}

    @property
    def bytes(self) -> dict[str, int]:
        """As JSON has it: the end is part of it."""
        last = min(self.end * _STORED, self.xorb.stored) - 1
        return {"start": self.start * _STORED, "end": last}


def _reconstruction(visit: RepositoryVisit, fetches: _Fetches) -> Response:
    claims = claims_of(visit)
    commit = _commit(visit, claims)
    sha256 = visit.parameter("file")
    size = _size(visit, commit, sha256)
    visit.details |= {"sha256": sha256, "size": size}
    wanted = _wanted(visit.request.headers.get("range"), size)
    url = address(
        visit,
        "xorbs/" + ticket(visit, {"sha256": sha256, "size": size, "commit": commit.oid}),
    )
    parts = list(_parts(sha256, size, wanted, url))
    return JSONResponse(
        {
            "offset_into_first_range": wanted.first % XORB - parts[0].start * MAX_CHUNK,
            "terms": [
                {"hash": part.xorb.id, "unpacked_length": part.length, "range": part.chunks}
                for part in parts
            ],
            **fetches(parts),
        }
    )


def _parts(sha256: str, size: int, wanted: ByteRange, url: str) -> Iterator[_Part]:
    for index in range(wanted.first // XORB, wanted.last // XORB + 1):
        begin = index * XORB
        xorb = _Xorb(sha256, index, min(XORB, size - begin))
        start = max(0, wanted.first - begin) // MAX_CHUNK
        end = min(xorb.chunks, (wanted.last - begin) // MAX_CHUNK + 1)
        yield _Part(xorb, start, end, f"{url}/{index}")


def _old_fetches(parts: list[_Part]) -> dict[str, Any]:
    return {
        "fetch_info": {
            part.xorb.id: [{"range": part.chunks, "url": part.url, "url_range": part.bytes}]
            for part in parts
        }
    }


def _new_fetches(parts: list[_Part]) -> dict[str, Any]:
    return {
        "xorbs": {
            part.xorb.id: [
                {"url": part.url, "ranges": [{"chunks": part.chunks, "bytes": part.bytes}]}
            ]
            for part in parts
        }
    }


def _commit(visit: RepositoryVisit, claims: dict[str, str | int]) -> Commit:
    """Return the revision that the claims are for, if its files may still be fetched."""
    commit = visit.hub.metadata.commit(visit.repository, str(claims["commit"]))
    if commit is None:
        raise errors.revision_not_found(str(claims["commit"]))
    visit.details["commit"] = commit.oid
    visit.check_fetch(commit)
    return commit


def _size(visit: RepositoryVisit, commit: Commit, sha256: str) -> int:
    """Return the size of a file of a revision; HubError 404 if it is none that is offered."""
    table = schema.entries
    with visit.hub.metadata.engine.connect() as connection:
        size = connection.execute(
            sa.select(table.c.size)
            .where(
                table.c.snapshot_id == commit.snapshot,
                table.c.sha256 == sha256,
                table.c.is_lfs,
                table.c.size > visit.hub.xet_reads_over,
            )
            .limit(1)
        ).scalar()
    if size is None or not is_sha256(sha256):
        raise errors.HubError(404, "File not found")
    return int(size)


def _wanted(header: str | None, size: int) -> ByteRange:
    """Read the range of a file that is asked for; clients write 2^64 - 2 for its end."""
    match = _RANGE.fullmatch(header or "")
    if match is None:
        return ByteRange(0, size - 1)
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if first >= size or last < first:
        raise _unsatisfiable(size)
    return ByteRange(first, min(last, size - 1))


def _unsatisfiable(size: int) -> errors.HubError:
    return errors.HubError(
        416, "Range not satisfiable", headers={"Content-Range": f"bytes */{size}"}
    )


def _number(text: str) -> int:
    if not _INDEX.fullmatch(text):
        raise errors.HubError(404, "The file has no such part")
    return int(text)


def _open(visit: RepositoryVisit, sha256: str, size: int) -> int:
    if not visit.hub.blobs.has(sha256, size):
        raise errors.damaged()
    return os.open(visit.hub.blobs.path(sha256), os.O_RDONLY | os.O_CLOEXEC)


def _stored(descriptor: int, xorb: _Xorb, wanted: ByteRange) -> Iterator[memoryview]:
    """Yield bytes of a xorb: each chunk of the file, behind a header."""
    with os.fdopen(descriptor, "rb", buffering=0):
        chunk = wanted.first // _STORED
        skip = wanted.first - chunk * _STORED
        left = wanted.length
        while left > 0:
            chunks = range(chunk, min(chunk + _CHUNKS_AT_ONCE, xorb.chunks))
            piece = _chunks(descriptor, xorb, chunks)[skip : skip + left]
            yield piece
            left -= len(piece)
            skip = 0
            chunk = chunks.stop


def _chunks(descriptor: int, xorb: _Xorb, chunks: range) -> memoryview:
    buffer = memoryview(bytearray(_STORED * len(chunks)))
    contents = []
    end = 0
    for chunk in chunks:
        length = min(MAX_CHUNK, xorb.length - chunk * MAX_CHUNK)
        buffer[end : end + HEADER_SIZE] = plain_header(length)
        contents.append(buffer[end + HEADER_SIZE : end + HEADER_SIZE + length])
        end += HEADER_SIZE + length
    expected = end - HEADER_SIZE * len(chunks)
    offset = xorb.index * XORB + chunks.start * MAX_CHUNK
    if os.preadv(descriptor, contents, offset) != expected:
        # The length is promised: breaking off is all that is left to say it with.
        raise OSError(f"blob {xorb.sha256} is shorter than it was")
    return buffer[:end]
