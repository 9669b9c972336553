from __future__ import annotations

import pytest

from holdfast_gateway.chain.sse import EventSplitter, EventTooLargeError, data_of

STREAM = b"data: 1\n\ndata: 2\r\n\r\n: comment\n\n\n\ndata: 3\r\rdata: left"
EVENTS = [b"data: 1", b"data: 2", b": comment", b"data: 3"]


@pytest.mark.parametrize("size", range(1, len(STREAM) + 1))
def test_events_are_the_same_wherever_the_network_cuts(size: int) -> None:
    splitter = EventSplitter()
    found = []
    for at in range(0, len(STREAM), size):
        found += splitter.feed(STREAM[at : at + size])
    assert found == EVENTS
    assert splitter.rest == b"data: left"


def test_an_event_without_end_is_not_kept() -> None:
    splitter = EventSplitter(limit=100)
    splitter.feed(b"x" * 100)
    with pytest.raises(EventTooLargeError):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x", b"x"),
        (b"data:x", b"x"),
        (b"event: message\ndata: x", b"x"),
        (b"data: a\ndata: b", b"a\nb"),
        (b"data: a\r\ndata: b", b"a\nb"),
        (b": comment", None),
        (b"id: 1", None),
    ],
)
def test_data_of(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data
