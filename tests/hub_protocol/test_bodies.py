"""Bodies that stop in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from starlette.requests import Request

from holdfast_hub_protocol import bodies
from holdfast_hub_protocol.errors import HubError

if TYPE_CHECKING:
    from starlette.types import Message


def test_nobody_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_SECONDS", 0.2)
    sent = [{"type": "http.request", "body": b"the beginning", "more_body": True}]

    async def receive() -> Message:
        if not sent:
            await anyio.sleep_forever()
        return sent.pop()

    async def read() -> None:
        headers = [(b"content-length", b"100")]
        body = bodies.Body(Request({"type": "http", "headers": headers}, receive))
        with anyio.fail_after(10):
            with pytest.raises(HubError) as raised:
                await anyio.to_thread.run_sync(body.whole)
            assert raised.value.status == 408
            await body.discard()  # it is over

    anyio.run(read)
