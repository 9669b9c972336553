"""Where uploaded xorbs wait until a shard says which files they are.

`<root>/<repository>/<epoch>/<xorb>.data` is the content of a xorb's chunks and `.index` its
chunks' hashes, lengths, and where they are found once a file was built from them; the content is
removed then. The epoch is part of the address that clients upload to, and they remember under
that address, for weeks, which chunks they need not send again. So whenever something that they
may count on is gone, the repository begins a new epoch, and they send everything.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.xet.errors import MissingXorbError, XetError
from holdfast_hub_protocol.xet.hashing import to_hex
from holdfast_hub_protocol.xet.xorbs import (
    Piece,
    Segment,
    XorbIndex,
    XorbReader,
    decode_index,
    encode_index,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from holdfast_hub_protocol.records import Repository

# Longer than any upload takes, and long enough to go on with one that was interrupted.
STAGED_SECONDS: Final = 2 * 24 * 3600
# Clients forget after three weeks what they uploaded.
REMEMBERED_SECONDS: Final = 30 * 24 * 3600
_LOOK_SECONDS: Final = 3600
_EPOCH: Final = re.compile(r"[0-9a-f]{16}")
_CURRENT: Final = "current"
_MOST_AT_ONCE: Final = 1000  # buffers in one call; the system takes 1024


@dataclass(frozen=True)
class Source:
    """Where a run of bytes lies: in the staged content ('') or in a blob."""

    sha256: str
    offset: int
    length: int


@dataclass(frozen=True)
class Expired:
    """What a sweep removed."""

    files: int = 0
    size: int = 0


class XorbStore:
    """The staged xorbs of all repositories, in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._looked: dict[Path, float] = {}

    def current(self, repository: Repository) -> Epoch:
        """Return the epoch in which a repository takes in xorbs now."""
        folder = self._folder(repository)
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            epoch = self._open(folder, _read_name(folder / _CURRENT))
            if epoch is not None:
                return epoch
            _begin(folder, over=_read_name(folder / _CURRENT))

    def epoch(self, repository: Repository, name: str) -> Epoch | None:
        """Return an epoch of a repository by its name; None if it is over."""
        return self._open(self._folder(repository), name)

    def expire(self, now: float | None = None) -> Expired:
        """Remove what was staged and never used, and what no client remembers any more."""
        instant = time.time() if now is None else now
        total = Expired()
        for folder in self._repositories():
            total = _sum(total, _expire(folder, instant))
        return total

    def expire_now_and_then(self, repository: Repository) -> None:
        """Do as `expire` for one repository, once an hour at most."""
        folder, now = self._folder(repository), time.time()
        if now - self._looked.get(folder, 0.0) > _LOOK_SECONDS:
            self._looked[folder] = now
            _expire(folder, now)

    def forget(self, repository: Repository) -> None:
        """Remove everything of a repository, which is being deleted."""
        shutil.rmtree(self._folder(repository), ignore_errors=True)

    def staged_bytes(self, repository: Repository) -> int:
        """Return how much a repository has staged, in bytes."""
        return sum(
            status.st_size
            for path in self._folder(repository).glob("*/*.data")
            if (status := _status(path)) is not None
        )

    def _repositories(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            yield from self.root.iterdir()

    def _folder(self, repository: Repository) -> Path:
        # Databases give numbers again; a repository made later must not find another's xorbs.
        return self.root / f"{repository.key}-{repository.created_at:%Y%m%d%H%M%S%f}"

    def _open(self, folder: Path, name: str) -> Epoch | None:
        if not _EPOCH.fullmatch(name) or not (folder / name).is_dir():
            return None
        return Epoch(folder / name)


class Epoch:
    """The xorbs of one repository that a client may count on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """What stands for the epoch in URLs."""
        return self.folder.name

    def receive(self, digest: bytes, pieces: Iterable[bytes]) -> XorbIndex | None:
        """Take in a xorb; None if its content was here; XetError, nothing kept, if it is wrong."""
        if self._touch(digest):
            for _ in pieces:
                pass  # the client reads the answer once it has sent all
            return None
        # Also one that is in blobs: who sends it does not count on them, and they may be gone.
        with self._new_file() as path:
            with path.open("xb", buffering=0) as file:

                def write(contents: list[Piece]) -> None:
                    _write_all(file.fileno(), contents)

                reader = XorbReader(write)
                for piece in pieces:
                    reader.feed(piece)
                index = reader.finish(digest)
            # The index last: it is what makes the xorb be there.
            path.replace(self._data(digest))
            self._save(digest, index)
        return index

    def index(self, digest: bytes) -> XorbIndex:
        """Return a xorb's index; MissingXorbError if it is not here or damaged."""
        try:
            return decode_index(self._index(digest).read_bytes())
        except (FileNotFoundError, XetError):
            raise MissingXorbError(f"xorb {to_hex(digest)} is not here") from None

    def open_data(self, digest: bytes) -> int | None:
        """Open the staged content of a xorb and return the descriptor; None if it is in blobs."""
        try:
            return os.open(self._data(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def note(self, built: dict[bytes, list[Segment]]) -> None:
        """Note where chunks stand in blobs, and remove staged content that is in blobs whole."""
        with self._locked():
            for digest, segments in built.items():
                index = self.index(digest)
                merged = _merged(index, segments)
                if merged != index.segments:
                    self._save(digest, replace(index, segments=merged))
                if _covered(merged) == len(index):
                    self._data(digest).unlink(missing_ok=True)

    def left(self, digest: bytes) -> int:
        """Return how many bytes of a xorb stand in no blob yet."""
        index = self.index(digest)
        offsets = index.offsets()
        return offsets[-1] - sum(offsets[run.end] - offsets[run.start] for run in index.segments)

    def end(self) -> None:
        """Begin another epoch, if this is still the current one."""
        _begin(self.folder.parent, over=self.name)

    def _touch(self, digest: bytes) -> bool:
        """Tell whether the content of a xorb is here; if so, its time begins anew."""
        try:
            os.utime(self._data(digest))
            os.utime(self._index(digest))
        except FileNotFoundError:
            return False
        return True

    def _save(self, digest: bytes, index: XorbIndex) -> None:
        with self._new_file() as path:
            path.write_bytes(encode_index(index))
            path.replace(self._index(digest))

    @contextmanager
    def _new_file(self) -> Iterator[Path]:
        path = self.folder / f"new-{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _data(self, digest: bytes) -> Path:
        return self.folder / f"{to_hex(digest)}.data"

    def _index(self, digest: bytes) -> Path:
        return self.folder / f"{to_hex(digest)}.index"


def _merged(index: XorbIndex, segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return the known segments and as much of the new ones as adds to them, in order."""
    merged = list(index.segments)
    offsets = index.offsets()
    covered = bytearray(len(index))
    for segment in merged:
        covered[segment.start : segment.end] = b"\1" * (segment.end - segment.start)
    for segment in segments:
        start = covered.find(0, segment.start, segment.end)
        while start >= 0:
            end = covered.find(1, start, segment.end)
            end = segment.end if end < 0 else end
            offset = segment.offset + offsets[start] - offsets[segment.start]
            merged.append(Segment(start, end, segment.sha256, offset))
            covered[start:end] = b"\1" * (end - start)
            start = covered.find(0, end, segment.end)
    return tuple(sorted(merged, key=lambda each: each.start))


def _covered(segments: Iterable[Segment]) -> int:
    return sum(segment.end - segment.start for segment in segments)


def _expire(folder: Path, now: float) -> Expired:
    removed = Expired()
    with suppress(FileNotFoundError):
        for epoch in [path for path in folder.iterdir() if path.is_dir()]:
            removed = _sum(removed, _expire_epoch(epoch, now))
        with suppress(OSError):  # not empty
            folder.rmdir()
    return removed


def _expire_epoch(epoch: Path, now: float) -> Expired:
    files = {path: status for path in epoch.iterdir() if (status := _status(path))}
    current = epoch.parent / _CURRENT
    is_current = _read_name(current) == epoch.name
    last = max((status.st_mtime for status in files.values()), default=_mtime(epoch))
    if now - last > (REMEMBERED_SECONDS if is_current else STAGED_SECONDS):
        if is_current:
            current.unlink(missing_ok=True)
        shutil.rmtree(epoch, ignore_errors=True)
        return Expired(len(files), sum(status.st_size for status in files.values()))
    stale = [
        path
        for path, status in files.items()
        if now - status.st_mtime > STAGED_SECONDS
        and (path.suffix == ".data" or path.name.startswith("new-"))
    ]
    if any(path.suffix == ".data" for path in stale):
        _begin(epoch.parent, over=epoch.name)
    for path in stale:
        if path.suffix == ".data":  # without it the xorb is not here
            path.with_suffix(".index").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return Expired(len(stale), sum(files[path].st_size for path in stale))


def _begin(folder: Path, over: str) -> None:
    """Begin a new epoch instead of `over`; of several who ask at once, one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _read_name(folder / _CURRENT) != over:
            return
        name = secrets.token_hex(8)
        (folder / name).mkdir()
        new = folder / f"new-{name}"
        new.write_text(name)
        new.replace(folder / _CURRENT)
    finally:
        os.close(descriptor)


def _read_name(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _write_all(descriptor: int, contents: list[Piece]) -> None:
    for start in range(0, len(contents), _MOST_AT_ONCE):
        batch = contents[start : start + _MOST_AT_ONCE]
        written = os.writev(descriptor, batch)
        if written < sum(map(len, batch)):  # almost full: the next call says so
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(descriptor, rest) :]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _mtime(path: Path) -> float:
    status = _status(path)
    return status.st_mtime if status else 0.0


def _sum(one: Expired, other: Expired) -> Expired:
    return Expired(one.files + other.files, one.size + other.size)
