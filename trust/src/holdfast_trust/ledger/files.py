"""The files of a ledger and the records in them.

    entries.jsonl       one canonical JSON record a line: {"event":{...},"index":0,"time":"..."}
    checkpoints.jsonl   one signed note a line, as a JSON string
    state.json          where the last commit ended; a shortcut, rebuilt when missing
    key, key.pub        the ed25519 key that signs checkpoints
    lock                held by whoever writes

Canonical JSON has no line breaks of its own, so a line that ends is a record that was written
whole, and bytes after the last line end are a write that was cut off before it was confirmed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785

from holdfast_trust.errors import TrustError
from holdfast_trust.ledger.merkle import Frontier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENTRIES = "entries.jsonl"
CHECKPOINTS = "checkpoints.jsonl"
STATE = "state.json"
LOCK = "lock"

LONGEST_EVENT_BYTES = 1 << 20

_LARGEST_INTEGER = 2**53 - 1
_PLAIN = {str, bool, type(None)}
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that is on disk: its place in the log and its RFC 6962 leaf hash."""

    index: int
    time: str
    leaf_hash: bytes


@dataclass(slots=True)
class Position:
    """How far a ledger has been read: `offset` bytes of entries make up `frontier`."""

    offset: int
    frontier: Frontier


def canonical(event: Mapping[str, Any]) -> bytes:  # Any: events are JSON of the writer's choice
    """Return an event as RFC 8785 canonical JSON; `TrustError` if it is not plain JSON."""
    try:
        data = _plain(event) or rfc8785.dumps(dict(event))
    except (rfc8785.CanonicalizationError, ValueError, TypeError, RecursionError) as error:
        raise TrustError("the event cannot be put on the ledger", cause=str(error)) from error
    if len(data) > LONGEST_EVENT_BYTES:
        raise TrustError(
            "the event is too long for the ledger",
            cause=f"{len(data)} bytes, {LONGEST_EVENT_BYTES} are allowed: "
            "bodies belong elsewhere, their digest here",
        )
    return data


def _plain(event: Mapping[str, Any]) -> bytes | None:
    """Return the canonical form of an event as most are, in a tenth of the time; else None.

    For names of ASCII and values that are text, whole numbers, true, false, null or lists of text,
    the standard library's encoder writes what RFC 8785 asks for: it sorts by code point, and
    escapes only what must be.
    """
    for name, value in event.items():
        if type(name) is not str or not name.isascii():
            return None
        kind = type(value)
        if kind is int:
            if not -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER:
                return None
        elif kind is list:
            if not all(type(each) is str for each in value):
                return None
        elif kind not in _PLAIN:
            return None
    return _encode(dict(event)).encode()


def record(event: bytes, index: int, time: str) -> bytes:
    """Return the canonical record around a canonical event, without its line end."""
    # Keys in RFC 8785 order, so that this is the canonical form without a second pass.
    return b'{"event":%b,"index":%d,"time":"%b"}' % (event, index, time.encode())


def lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """Yield the whole lines of a file from `offset`, without their ends; a torn tail is left."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield line[:-1]


def read_state(folder: Path) -> Position:
    """Return the position of the last commit; the beginning when it is not known."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        state = json.loads((folder / STATE).read_bytes())
        peaks = tuple(bytes.fromhex(peak) for peak in state["peaks"])
        return Position(int(state["offset"]), Frontier(int(state["size"]), peaks))
    return Position(0, Frontier())


def write_state(folder: Path, position: Position) -> None:
    """Keep the position; not synced, since losing it costs only a longer start."""
    state = {
        "offset": position.offset,
        "size": position.frontier.size,
        "peaks": [peak.hex() for peak in position.frontier.peaks],
    }
    fresh = folder / f".{STATE}.new"
    fresh.write_text(json.dumps(state), encoding="ascii")
    fresh.replace(folder / STATE)


def read(folder: Path | str, start: int = 0) -> Iterator[dict[str, Any]]:  # Any: see `canonical`
    """Yield the records {event, index, time} of a ledger from entry `start`, as written."""
    for line in lines(Path(folder) / ENTRIES):
        found = json.loads(line)
        if found["index"] >= start:
            yield found
