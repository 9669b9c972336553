"""Appending to a ledger: one thread commits what many callers hand in, with one sync for all."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import files
from holdfast_trust.ledger.checkpoint import Checkpoint, Signer, open_signer
from holdfast_trust.ledger.files import Entry, Position
from holdfast_trust.ledger.merkle import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast_trust.ledger.merkle import Frontier

_LARGEST_BATCH = 4096
_LOCK_MODE = 0o640
_TAIL_BYTES = 1 << 16  # far longer than any checkpoint


class _Waiting(NamedTuple):
    event: bytes
    future: Future[Entry]


class Ledger:
    """An append-only Merkle log in the folder `path`, made on first use.

    `append` returns when the event is on disk; concurrent callers share one sync. Threads, async
    tasks and processes may all append to one ledger. A checkpoint is signed on `checkpoint()`,
    on `close()`, and `checkpoint_seconds` after the last one if there is anything new.
    After a failed sync nothing is accepted until the ledger is opened again. Open it after a fork.
    """

    def __init__(
        self, path: Path | str, *, origin: str | None = None, checkpoint_seconds: float = 60.0
    ) -> None:
        self.path = Path(path)
        self.commits = 0
        """How many syncs have been paid for, against as many appends as there were."""
        self._checkpoint_seconds = checkpoint_seconds
        self._waiting: deque[_Waiting] = deque()
        self._arrival = threading.Condition()
        self._committing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: TrustError | None = None
        self._checkpointed_at, self._checkpointed_size = monotonic(), 0
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._lock_file = os.open(self.path / files.LOCK, os.O_CREAT | os.O_RDWR, _LOCK_MODE)
            try:
                self._entries = -1
                with self._locked():
                    self._signer = self._begin(origin or f"holdfast/{self.path.resolve().name}")
                    self._position = files.read_state(self.path)
                    self._entries = os.open(self.path / files.ENTRIES, os.O_RDWR | os.O_APPEND)
                    self._catch_up()
                    self._compare_checkpoint()
            except BaseException:
                os.close(self._lock_file)
                if self._entries >= 0:
                    os.close(self._entries)
                raise
        except OSError as error:
            raise TrustError(
                "the ledger cannot be opened",
                where=str(self.path),
                cause=error.strerror or str(error),
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # Any: events are JSON objects of the writer's choice; `canonical` checks them.

    def append(self, event: Mapping[str, Any]) -> Entry:
        """Put an event on the log and return once it is on disk; `TrustError` if it is not."""
        return self.submit(event).result()

    async def append_async(self, event: Mapping[str, Any]) -> Entry:
        """Do as `append` without holding up the event loop."""
        return await asyncio.wrap_future(self.submit(event))

    def submit(self, event: Mapping[str, Any]) -> Future[Entry]:
        """Hand an event in; the future is done once it is on disk."""
        waiting = _Waiting(files.canonical(event), Future())
        # A caller who stops waiting does not take back an event: it may be on disk already.
        waiting.future.set_running_or_notify_cancel()
        with self._arrival:
            if self._closed:
                raise TrustError("the ledger is closed", where=str(self.path))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._serve, name=f"ledger {self.path.name}", daemon=True
                )
                self._thread.start()
            self._waiting.append(waiting)
            self._arrival.notify()
        return waiting.future

    def checkpoint(self) -> Checkpoint:
        """Sign and keep the present size and root; hand `.note` to a witness."""
        with self._committing, self._locked():
            self._usable()
            self._catch_up()
            return self._sign()

    def close(self) -> None:
        """Finish what was handed in, sign a checkpoint over it, and close."""
        with self._arrival:
            if self._closed:
                return
            self._closed = True
            self._arrival.notify()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()
        try:
            if self._position.frontier.size > self._checkpointed_size and not self._broken:
                self.checkpoint()
        finally:
            os.close(self._entries)
            os.close(self._lock_file)

    # -- within --------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            with self._arrival:
                if not self._waiting and not self._closed:
                    self._arrival.wait(self._checkpoint_due())
                if self._closed and not self._waiting:
                    return
                count = min(len(self._waiting), _LARGEST_BATCH)
                batch = [self._waiting.popleft() for _ in range(count)]
            if not batch:
                self._sign_when_due()
                continue
            try:
                entries = self._commit([each.event for each in batch])
            except Exception as error:  # noqa: BLE001 - every caller must hear of it, whatever it is
                for each in batch:
                    each.future.set_exception(error)
            else:
                for each, entry in zip(batch, entries, strict=True):
                    each.future.set_result(entry)
                self._sign_when_due()

    def _checkpoint_due(self) -> float | None:
        """Return the seconds until the entries so far want a checkpoint; None if they have one."""
        if self._broken or self._position.frontier.size == self._checkpointed_size:
            return None
        return max(0.0, self._checkpointed_at + self._checkpoint_seconds - monotonic())

    def _sign_when_due(self) -> None:
        if self._checkpoint_due() == 0:
            # A full disk here fails the next append, which has a caller to tell.
            self._checkpointed_at = monotonic()
            with suppress(TrustError):
                self.checkpoint()

    def _commit(self, events: list[bytes]) -> list[Entry]:
        with self._committing, self._locked():
            self._usable()
            self._catch_up()
            frontier, time = self._position.frontier.copy(), _now()
            entries, data = [], bytearray()
            for event in events:
                record = files.record(event, frontier.size, time)
                entries.append(Entry(frontier.size, time, leaf_hash(record)))
                frontier.append(entries[-1].leaf_hash)
                data += record + b"\n"
            self._write(bytes(data))
            self._position = Position(self._position.offset + len(data), frontier)
        return entries

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._entries, view) :]
        except OSError as error:
            os.ftruncate(self._entries, self._position.offset)
            raise self._unwritten(error, "make room on the disk") from error
        try:
            os.fdatasync(self._entries)
        except OSError as error:
            # What a failed sync left in the page cache is unknowable: a second one that
            # succeeds would prove nothing, so the log starts again from what the disk has.
            self._broken = self._unwritten(error, "mend the disk, then restart the service")
            raise self._broken from error
        self.commits += 1

    def _unwritten(self, error: OSError, next_command: str) -> TrustError:
        return TrustError(
            "the ledger could not be written",
            where=str(self.path),
            cause=error.strerror or str(error),
            next_command=next_command,
        )

    def _usable(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _begin(self, origin: str) -> Signer:
        entries = self.path / files.ENTRIES
        begun = entries.exists() and entries.stat().st_size > 0
        if begun and not (self.path / "key").exists():
            raise TrustError(
                "the ledger has entries but no signing key",
                where=str(self.path),
                cause="a new key would pass off whatever is there as genuine",
                next_command="restore key and key.pub from where they were kept",
            )
        signer = open_signer(self.path, origin)
        os.close(os.open(entries, os.O_CREAT | os.O_RDWR, 0o640))
        os.close(os.open(self.path / files.CHECKPOINTS, os.O_CREAT | os.O_RDWR, 0o640))
        folder = os.open(self.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return signer

    def _compare_checkpoint(self) -> None:
        """Compare with the last checkpoint; over an empty log, sign the first.

        The first is signed before any entry, so a ledger without one is known for a forgery.
        """
        last = _last_line(self.path / files.CHECKPOINTS)
        frontier = self._position.frontier
        if last is None and frontier.size == 0:
            self._sign()
            return
        try:
            self._checkpointed_size = _checked(last, self._signer, frontier)
        except ValueError as error:
            raise TrustError(
                "the ledger does not fit its checkpoints",
                where=str(self.path),
                cause=str(error),
                next_command=f"holdfast-trust ledger verify {self.path}",
            ) from error

    def _catch_up(self) -> None:
        """Read what other processes appended, and cut off a write that never ended."""
        position, path = self._position, self.path / files.ENTRIES
        size = os.fstat(self._entries).st_size
        if size == position.offset:
            return
        if size < position.offset:
            raise TrustError(
                "the ledger is shorter than it was",
                where=str(path),
                cause=f"{position.offset} bytes were on disk once, {size} are there now",
                next_command=f"holdfast-trust ledger verify {self.path}",
            )
        for line in files.lines(path, position.offset):
            start = b'{"event":'
            if not line.startswith(start) or _index(line) != position.frontier.size:
                raise TrustError(
                    f"entry {position.frontier.size} of the ledger is damaged",
                    where=f"{path}, byte {position.offset}",
                    next_command=f"holdfast-trust ledger verify {self.path}",
                )
            position.frontier.append(leaf_hash(line))
            position.offset += len(line) + 1
        if size > position.offset:
            os.ftruncate(self._entries, position.offset)
            os.fdatasync(self._entries)

    def _sign(self) -> Checkpoint:
        frontier = self._position.frontier
        signed = self._signer.sign(frontier.size, frontier.root(), _now())
        path = self.path / files.CHECKPOINTS
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        try:
            whole = _whole_lines(descriptor)
            os.ftruncate(descriptor, whole)
            line = json.dumps(signed.note, ensure_ascii=False).encode() + b"\n"
            os.write(descriptor, line)
            os.fdatasync(descriptor)
        except OSError as error:
            raise TrustError(
                "the checkpoint could not be written",
                where=str(path),
                cause=error.strerror or str(error),
            ) from error
        finally:
            os.close(descriptor)
        files.write_state(self.path, self._position)
        self._checkpointed_at, self._checkpointed_size = monotonic(), frontier.size
        return signed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)


def _checked(line: bytes | None, signer: Signer, frontier: Frontier) -> int:
    """Return the size that the last checkpoint signed; `ValueError` if the log does not fit it."""
    if line is None:
        raise ValueError("there are entries, but the checkpoints are gone")
    signed = signer.verifier.open(str(json.loads(line)))
    if signed.size > frontier.size:
        raise ValueError(f"{signed.size} entries were signed, {frontier.size} are there")
    if signed.size == frontier.size and signed.root != frontier.root():
        raise ValueError("the entries are not those that were signed")
    return signed.size


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _index(line: bytes) -> int | None:
    try:
        found = json.loads(line)["index"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def _whole_lines(descriptor: int) -> int:
    """Return the length of a file up to its last line end: what a cut-off write left is after."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    return size - len(tail) + tail.rfind(b"\n") + 1


def _last_line(path: Path) -> bytes | None:
    """Return the last whole line of a file of short lines, without reading all of it."""
    with path.open("rb") as file:
        size = _whole_lines(file.fileno())
        tail = os.pread(file.fileno(), min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
    return tail.splitlines()[-1] if tail else None
