"""Bodies of requests: nothing is lost, taken twice or asked for twice at once, however it ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from holdfast_hub_protocol import bodies, errors
from holdfast_hub_protocol.bodies import Body
from holdfast_hub_protocol.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = [bytes([number]) * 700 for number in range(50)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_AT_ONCE", 1000)


@dataclass
class Sender:
    """A client that sends pieces, then nothing more or less than the rest of its body."""

    pieces: list[bytes]
    leaves: bool = False  # before its end
    length: int | None = None  # that it announced
    sent: int = 0
    gone: bool = False
    asked: list[int] = field(default_factory=list)  # by whom at once

    async def receive(self) -> dict[str, Any]:
        assert not self.asked, "asked for twice at once"
        self.asked.append(1)
        await asyncio.sleep(0)
        self.asked.pop()
        if self.sent == len(self.pieces):
            assert self.leaves, "asked for more than there is"
            self.gone = True
            return {"type": "http.disconnect"}
        self.sent += 1
        more = self.leaves or self.sent < len(self.pieces)
        return {"type": "http.request", "body": self.pieces[self.sent - 1], "more_body": more}

    def request(self, handler: Callable[[Body], object]) -> object:
        """Return what a handler makes of the body, as an endpoint calls it."""
        headers = [] if self.length is None else [(b"content-length", b"%d" % self.length)]
        scope = {"type": "http", "method": "PUT", "headers": headers}
        found: list[object] = []

        def answer(_: Request, body: Body) -> Any:
            found.append(handler(body))

        asyncio.run(in_thread(answer, Request(scope, self.receive)))
        return found[0]


def large(body: Body) -> list[bytes]:
    return list(body.large_pieces())


@pytest.mark.parametrize(
    "pieces",
    [MANY, [b""], [b"", b"x", b""], [b"x" * 5000], [b"x"] * 3000, [b"x" * 1000, b"y" * 1000]],
)
def test_all_of_it_in_order_and_in_large_pieces(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    found = Sender(pieces, length=len(content)).request(large)
    assert isinstance(found, list)
    assert b"".join(found) == content
    assert all(len(piece) >= 1000 for piece in found[:-1])
    assert all(found)


def test_the_next_is_taken_in_meanwhile_and_no_more() -> None:
    sender = Sender(MANY)

    def work(body: Body) -> int:
        next(body.large_pieces())
        deadline = time.monotonic() + 10
        while sender.sent < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)  # for what must not come
        sent = sender.sent
        assert len(b"".join(body.pieces())) == 700 * (len(MANY) - 2)
        return sent

    assert sender.request(work) == 4, "two for the piece, two for the next"


@pytest.mark.parametrize("taken", [0, 1, 3, 25])
@pytest.mark.parametrize("again", [Body.pieces, Body.large_pieces])
def test_who_stops_early_reads_on_where_it_stopped(taken: int, again: Any) -> None:
    def work(body: Body) -> bytes:
        pieces = body.large_pieces()
        first = [next(pieces) for _ in range(taken)]
        return b"".join([*first, *again(body)])

    assert Sender(MANY).request(work) == b"".join(MANY)


def test_who_refuses_early_has_the_rest_taken_in() -> None:
    def refuse(body: Body) -> None:
        next(body.large_pieces())
        raise errors.bad_request("no")

    sender = Sender(MANY)
    with pytest.raises(errors.HubError, match="no"):
        sender.request(refuse)
    assert sender.sent == len(MANY)


def test_the_rest_is_bounded_for_who_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body.discard, "__defaults__", (5000,))

    def refuse(body: Body) -> None:
        next(body.large_pieces())
        raise errors.bad_request("no")

    sender = Sender(MANY)
    with pytest.raises(errors.HubError, match="no"):
        sender.request(refuse)
    assert 700 * sender.sent < 5000 + 4 * 1400


@pytest.mark.parametrize("pieces", [MANY[:2], MANY[:3], []])
def test_a_client_that_leaves(pieces: list[bytes]) -> None:
    sender = Sender(pieces, leaves=True)
    with pytest.raises(errors.HubError, match="ended early"):
        sender.request(large)
    assert sender.gone


def test_a_client_that_leaves_while_nobody_listens() -> None:
    """It left while the last piece was worked on, which then was refused."""
    sender = Sender(MANY[:2], leaves=True)

    def refuse(body: Body) -> None:
        next(body.large_pieces())
        deadline = time.monotonic() + 10
        while not sender.gone and time.monotonic() < deadline:
            time.sleep(0.001)
        raise errors.bad_request("no")

    with pytest.raises(errors.HubError, match="no"):
        sender.request(refuse)
    assert sender.gone


def test_less_than_was_announced() -> None:
    with pytest.raises(errors.HubError, match="ended early"):
        Sender(MANY, length=700 * len(MANY) + 1).request(large)
