"""What a client sees of a stream: the shape it asked for, from the richer one we asked for."""

import json
from collections.abc import Mapping
from typing import ClassVar

from holdfast_gateway.api.calls import Call
from holdfast_gateway.chain.trace import Trace
from holdfast_gateway.metering.tokens import Tally

_USAGE_KEY = b',"usage":'


class StreamView:
    """Reads each event of an upstream's stream once, counts, and says what to pass on.

    The gateway always asks for usage in every event. What the client did not ask for is cut out of
    the bytes rather than written anew, so that log probabilities and text stay as vLLM wrote them.
    With a trace it asked for token ids too, keeps them there, and cuts them out likewise.
    """

    ends_with_done: ClassVar[bool] = True

    def __init__(self, call: Call, trace: Trace | None = None) -> None:
        self._trace = trace
        self._ids = trace is not None and call.request.get("return_token_ids") is True
        self._usage = call.wants_usage
        self._continuous = call.wants_continuous_usage
        self._one_choice = call.one_choice
        self.tally = Tally(call.choices_per_prompt)
        self.failure: str | None = None
        self._reports_usage = False
        self._settled = False
        self._open: dict[int, bool] = {}

    @property
    def complete(self) -> bool:
        """Whether everything came.

        [DONE] proves nothing: a balancer sends it after a crash as well.
        """
        if self.failure is not None:
            return False
        if self._reports_usage:
            return self._settled
        return bool(self._open) and not any(self._open.values())

    def see(self, data: bytes) -> bytes | None:
        """Take the data of an event, not [DONE]; return what the client gets, None for nothing."""
        if self._settled:  # what a balancer says when a connection is closed uncleanly
            return None
        cut = _cut_usage(data)
        if cut is not None:
            head, usage = cut
            self._reports_usage = True
            last = b'"choices":[]' in head
            if not last and self._one_choice:
                self.tally.see(0, usage)
                return self._traced(data if self._continuous else head, usage)
        return self._see_whole(data, None if cut is None else cut[0])

    def frame(self, data: bytes) -> bytes:
        """Return the event to send for what `see` returned last."""
        return b"data: " + data + b"\n\n"

    def _see_whole(self, data: bytes, head: bytes | None) -> bytes | None:
        try:
            chunk = json.loads(data)
        except ValueError:
            self.failure = "an event is not JSON"
            return None
        if not isinstance(chunk, dict) or chunk.get("error") is not None:
            self.failure = str(chunk)[:500]
            return None
        usage = chunk.get("usage")
        choices = [each for each in chunk.get("choices") or () if isinstance(each, dict)]
        for choice in choices:
            index = int(choice.get("index", 0))
            self._open[index] = choice.get("finish_reason") is None
            if isinstance(usage, Mapping):
                self.tally.see(index, usage)
        if isinstance(usage, Mapping):
            self._reports_usage = True
            if not choices:
                self._settled = True
                self.tally.settle(usage)
                return data if self._usage else None
        if self._continuous or "usage" not in chunk:
            head = data
        elif head is None:
            del chunk["usage"]
            head = json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode()
        return self._traced(head, usage)

    def _traced(self, event: bytes, usage: object) -> bytes | None:
        if self._trace is None:
            return event
        counted = usage if isinstance(usage, Mapping) else {}
        seen, says = self._trace.take(event, counted)
        if self._ids:
            return event
        return seen if says else None


def _cut_usage(data: bytes) -> tuple[bytes, dict[str, object]] | None:
    """Cut a usage object off the end of an event; None if it does not end in one.

    The key with its quotes bare cannot stand inside a JSON string. If what lies between it and the
    last brace is one JSON object, that brace closes the outermost object, so the key is its last.
    """
    at = data.rfind(_USAGE_KEY)
    if at < 0 or not data.endswith(b"}}"):
        return None
    try:
        usage = json.loads(data[at + len(_USAGE_KEY) : -1])
    except ValueError:
        return None
    return (data[:at] + b"}", usage) if isinstance(usage, dict) else None
