"""What was begun and what ended, in files that survive a killed gateway until it is in the table.

    4711-0.jsonl    {"format":1}
                    [0,"b",[...Opening]]            let through, on its way to an upstream
                    [1,"b",[...Opening]]
                    [0,"e",[...Closing]]            ended
                    ["w",[0]]                       in the usage table and on the ledger

Written with one system call a line and never synced: what a process has written survives its
death, only not that of the machine. Each file is locked by the process that writes it; one whose
lock can be had belongs to nobody that lives, and is read at the next start.
"""

import errno
import fcntl
import json
import logging
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from holdfast_gateway.metering.record import LOST, Closing, Opening

log = logging.getLogger("holdfast.gateway")

_FORMAT = 1
_SEGMENT_BYTES = 1 << 20
_UNREAD = ".unread"


class Segment:
    """One file. `begun` is counted by who begins requests, `finished` by the recorder's thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o640)
        self.begun = 0
        self.finished = 0
        self.size = 0
        self._torn = False

    def write(self, line: str) -> None:
        """Append a line; raise OSError when it is not there as a whole."""
        data = (b"\n" if self._torn else b"") + line.encode() + b"\n"
        self.size += len(data)
        self._torn = True  # until it is not
        if os.write(self.descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._torn = False

    def remove(self) -> None:
        """Take the file away; nothing in it is needed any more."""
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


class Ticket(NamedTuple):
    """Where a request stands in the spool."""

    segment: Segment
    number: int


class Left(NamedTuple):
    """A request that a killed gateway left behind."""

    opening: Opening
    closing: Closing
    ticket: Ticket


class Spool:
    """The files of one process, in a folder that several may share.

    `begin` and `end` belong to the event loop, `written` and `close` to the recorder's thread. A
    disk that takes nothing more is said once and stops nobody: the recorder then keeps in memory
    what it cannot write, and refuses further requests when that is too much.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._folder = folder
        self._count = 0
        self._full: deque[Segment] = deque()
        self._failing = False
        self._current = self._new()

    def begin(self, opening: Opening) -> Ticket:
        """Note that a request is on its way to an upstream."""
        if self._current.size > _SEGMENT_BYTES:
            self._turn_over()
        segment = self._current
        number = segment.begun
        segment.begun += 1
        self._write(segment, [number, "b", opening])
        return Ticket(segment, number)

    def end(self, ticket: Ticket, closing: Closing) -> None:
        """Note how it ended, before the client can know."""
        self._write(ticket.segment, [ticket.number, "e", closing])

    def written(self, tickets: Iterable[Ticket]) -> None:
        """Note that these are in the table and on the ledger; drop files that nobody needs."""
        numbers: dict[Segment, list[int]] = {}
        for ticket in tickets:
            numbers.setdefault(ticket.segment, []).append(ticket.number)
        for segment, written in numbers.items():
            self._write(segment, ["w", written])
            segment.finished += len(written)
        full = tuple(self._full)  # in one step: the event loop may add one meanwhile
        for segment in [each for each in full if each.finished == each.begun]:
            self._full.remove(segment)
            segment.remove()

    def recover(self) -> list[Left]:
        """Return what gateways that were killed have left behind, the oldest first.

        A file that cannot be understood is kept under another name.
        """
        left = []
        for path in sorted(self._folder.glob("*.jsonl"), key=_written_at):
            if path == self._current.path:
                continue
            segment = Segment(path)
            if not _lock(segment):  # another gateway lives and writes it
                os.close(segment.descriptor)
                continue
            try:
                found = _read(segment)
            except (ValueError, TypeError, LookupError) as error:
                log.error("%s cannot be read and is kept as %s: %s", path, _UNREAD, error)  # noqa: TRY400  # said by the error itself
                path.rename(path.with_suffix(_UNREAD))
                os.close(segment.descriptor)
                continue
            if not found:
                segment.remove()
                continue
            segment.begun = len(found)
            self._full.append(segment)
            left += found
        return left

    def close(self) -> None:
        """Drop what is written; what is not stays for the next start."""
        for segment in (self._current, *self._full):
            if segment.finished == segment.begun:
                segment.remove()
            else:
                os.close(segment.descriptor)
        self._full.clear()

    def _turn_over(self) -> None:
        """Go on in a new file, or, where none can be made, in the old one."""
        try:
            fresh = self._new()
        except OSError as error:
            if not self._failing:
                log.error("no new file in %s: %s", self._folder, error)  # noqa: TRY400  # said by the error itself
            self._failing = True
            return
        self._full.append(self._current)
        self._current = fresh

    def _new(self) -> Segment:
        while True:
            segment = Segment(self._folder / f"{os.getpid()}-{self._count}.jsonl")
            self._count += 1
            if _lock(segment) and _fresh(segment):
                break
            os.close(segment.descriptor)
        self._write(segment, {"format": _FORMAT})
        return segment

    def _write(self, segment: Segment, what: object) -> None:
        try:
            segment.write(_dump(what))
        except OSError as error:
            if not self._failing:
                log.error("%s cannot be written: %s", segment.path, error)  # noqa: TRY400  # as above
            self._failing = True
        else:
            self._failing = False


_dump = json.JSONEncoder(separators=(",", ":")).encode


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a predecessor has just written all that was in it
        return 0.0


def _lock(segment: Segment) -> bool:
    try:
        fcntl.flock(segment.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fresh(segment: Segment) -> bool:
    """Say whether a file is ours to fill.

    It may be of a process that had our number, or have been taken for such by another gateway,
    which removed it just before we locked it.
    """
    state = os.fstat(segment.descriptor)
    return state.st_size == 0 and state.st_nlink == 1


def _read(segment: Segment) -> list[Left]:
    begun: dict[int, Opening] = {}
    ended: dict[int, Closing] = {}
    written: set[int] = set()
    with segment.path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:  # a full disk, or the last write of a machine that went down
                log.warning("%s holds a torn line", segment.path)
                continue
            if isinstance(record, dict):
                if record["format"] != _FORMAT:
                    raise ValueError(f"format {record['format']}, known is {_FORMAT}")
            elif record[0] == "w":
                written.update(record[1])
            elif record[1] == "b":
                opening = Opening(*record[2])
                begun[record[0]] = opening._replace(policies=tuple(opening.policies))
            else:
                ended[record[0]] = Closing(*record[2])
    return [
        Left(opening, ended.get(number, LOST), Ticket(segment, number))
        for number, opening in begun.items()
        if number not in written
    ]
