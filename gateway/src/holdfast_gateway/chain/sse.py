"""Server-sent events, just enough of them: cut a byte stream into events, read an event's data."""

import re

# A blank line ends an event. The standard allows three line ends; JSON has none of them inside.
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LONGEST_BLANK_LINE = 4


class EventTooLargeError(Exception):
    """An event grew beyond the limit: the upstream is not speaking server-sent events."""


class EventSplitter:
    """Cut what arrives into whole events, wherever the network cut it."""

    def __init__(self, limit: int = 16 * 1024 * 1024) -> None:
        self._rest = b""
        self._limit = limit

    def feed(self, block: bytes) -> list[bytes]:
        """Return the events completed by this block, without the blank lines that end them."""
        start = max(0, len(self._rest) - _LONGEST_BLANK_LINE)  # what is older was searched before
        data = self._rest + block
        events = []
        begin = 0
        for blank in _BLANK_LINE.finditer(data, start):
            if blank.start() > begin:
                events.append(data[begin : blank.start()])
            begin = blank.end()
        self._rest = data[begin:]
        if len(self._rest) > self._limit:
            raise EventTooLargeError(f"an event is larger than {self._limit} bytes")
        return events

    @property
    def rest(self) -> bytes:
        """Return what came after the last whole event."""
        return self._rest


def data_of(event: bytes) -> bytes | None:
    """Return the data of an event, None if it has none (a comment that keeps the line open)."""
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(line.removeprefix(b" ") for line in lines) if lines else None
