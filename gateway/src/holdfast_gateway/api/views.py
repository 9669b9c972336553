"""Streams of the responses and the messages API: read, counted, passed on as they came."""

import json
import re
from collections.abc import Mapping
from typing import ClassVar, Protocol

from holdfast_gateway.api.calls import Call
from holdfast_gateway.api.endpoints import ENDPOINTS, Shape
from holdfast_gateway.api.usage import read_usage
from holdfast_gateway.chain.trace import Trace
from holdfast_gateway.chain.view import StreamView
from holdfast_gateway.metering.tokens import Tokens

_EVENT_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")


class Counted(Protocol):
    """A count that grows with a stream."""

    @property
    def tokens(self) -> Tokens:
        """Return the best count there is by now."""


class View(Protocol):
    """Reads each event of an upstream's stream once, counts, and says what to pass on."""

    failure: str | None
    ends_with_done: ClassVar[bool]
    """Whether the API's streams end with [DONE]; else `complete` turns true with the last event."""

    @property
    def tally(self) -> Counted:
        """Return what was counted so far."""

    @property
    def complete(self) -> bool:
        """Whether everything came."""

    def see(self, data: bytes) -> bytes | None:
        """Take the data of an event, not [DONE]; return what the client gets, None for nothing."""

    def frame(self, data: bytes) -> bytes:
        """Return the event to send for what `see` returned last."""


class EventCount:
    """Counts a stream whose usage comes at its end: until then one token for each delta.

    vLLM puts several tokens into one event when it is busy, and none of what a tool parser holds
    back: before the end this is what was certainly generated, not all of it.
    """

    def __init__(self, shape: Shape) -> None:
        self.tokens = Tokens()
        self._shape = shape

    def delta(self) -> None:
        """Count one delta."""
        seen = self.tokens
        self.tokens = Tokens(seen.prompt, seen.cached, (seen.completion or 0) + 1)

    def settle(self, usage: object) -> None:
        """Take what the upstream counted, as far as it says."""
        if isinstance(usage, Mapping):
            said, seen = read_usage(self._shape, usage), self.tokens
            self.tokens = Tokens(
                seen.prompt if said.prompt is None else said.prompt,
                seen.cached if said.cached is None else said.cached,
                seen.completion if said.completion is None else said.completion,
            )


class _TypedView:
    """What the two have in common: JSON objects with a type, sent under its name."""

    ends_with_done: ClassVar[bool] = False
    shape: ClassVar[Shape]
    last: ClassVar[frozenset[str]]
    failures: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        self.failure: str | None = None
        self.complete = False
        self.tally = EventCount(self.shape)
        self._name = ""

    def see(self, data: bytes) -> bytes | None:
        if self.complete:  # what a balancer says when a connection is closed uncleanly
            return None
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        kind = event.get("type") if isinstance(event, dict) else None
        if (
            not isinstance(kind, str)
            or not _EVENT_NAME.fullmatch(kind)
            or kind in self.failures
            or event.get("error") is not None
        ):
            self.failure = _told_of(event)
            return None
        self._name = kind
        self._count(kind, event)
        self.complete = kind in self.last
        return data

    def _count(self, kind: str, event: Mapping[str, object]) -> None:
        raise NotImplementedError

    def frame(self, data: bytes) -> bytes:
        lines = data.replace(b"\r", b"").replace(b"\n", b"\ndata: ")  # JSON has them between keys
        return b"event: " + self._name.encode() + b"\ndata: " + lines + b"\n\n"


class ResponsesView(_TypedView):
    """POST /v1/responses: everything is in the last event, the whole response with its usage."""

    shape = Shape.RESPONSES
    last = frozenset({"response.completed", "response.incomplete"})
    failures = frozenset({"error", "response.failed"})

    def _count(self, kind: str, event: Mapping[str, object]) -> None:
        if kind.endswith(".delta"):
            self.tally.delta()
        elif kind in self.last:
            self.tally.settle(_inside(event, "response").get("usage"))


class MessagesView(_TypedView):
    """POST /v1/messages: the prompt's size comes first, the answer's with its reason to stop."""

    shape = Shape.ANTHROPIC
    last = frozenset({"message_stop"})
    failures = frozenset({"error"})

    def _count(self, kind: str, event: Mapping[str, object]) -> None:
        if kind == "content_block_delta":
            self.tally.delta()
        elif kind == "message_start":
            self.tally.settle(_inside(event, "message").get("usage"))
        elif kind == "message_delta":
            self.tally.settle(event.get("usage"))


def view_for(call: Call, trace: Trace | None = None) -> View:
    """Return the view of a call's stream; `trace` keeps what one that can be resumed generates."""
    shape = ENDPOINTS[call.endpoint].shape
    if shape is Shape.RESPONSES:
        return ResponsesView()
    if shape is Shape.ANTHROPIC:
        return MessagesView()
    return StreamView(call, trace)


def _told_of(event: object) -> str:
    """Return what went wrong, and nothing of what was asked or answered: it goes to the log."""
    if not isinstance(event, dict):
        return "an event is not JSON"
    error = event.get("error") or _inside(event, "response").get("error")
    return f"{str(event.get('type'))[:64]!r}: {str(error)[:500]}"


def _inside(event: Mapping[str, object], key: str) -> Mapping[str, object]:
    inner = event.get(key)
    return inner if isinstance(inner, Mapping) else {}
