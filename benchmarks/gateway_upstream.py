"""A mock of a vLLM replica for the gateway's benchmark: canned answers after a fixed time.

It computes nothing, so that what is measured is what stands in front of it. Run as a program:
`gateway_upstream.py PORT SERVICE_SECONDS TOKENS CHUNK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

MODEL = "holdfast/benchmark"
PROMPT_TOKENS = 12
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _usage(completion: int) -> dict[str, object]:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": PROMPT_TOKENS + completion,
        "completion_tokens": completion,
    }


class Replica(asyncio.Protocol):
    """One connection: requests in turn, each answered after the fixed time."""

    service_seconds = 0.0
    tokens = 16
    chunk_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with nothing read."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._read = b""
        self._answering: set[asyncio.Task[None]] = set()

    def connection_lost(self, _error: Exception | None) -> None:
        """Answer nobody who has gone."""
        for task in self._answering:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._read += data
        head, blank, rest = self._read.partition(b"\r\n\r\n")
        if not blank:
            return
        found = _LENGTH.search(head)
        size = int(found[1]) if found else 0
        if len(rest) < size:
            return
        self._read = rest[size:]
        task = asyncio.ensure_future(self._answer(head, rest[:size]))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            entry = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL}
            self._whole(json.dumps({"object": "list", "data": [entry]}).encode())
            return
        asked = json.loads(body)
        await asyncio.sleep(self.service_seconds)
        if asked.get("stream"):
            await self._stream(asked)
            return
        message = {"role": "assistant", "content": "word " * self.tokens}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        answer: dict[str, object] = {"id": "chatcmpl-1", "object": "chat.completion"}
        answer |= {"created": 1, "model": MODEL}
        self._whole(
            json.dumps({**answer, "choices": [choice], "usage": _usage(self.tokens)}).encode()
        )

    def _whole(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % len(body)
            + body
        )

    async def _stream(self, asked: dict[str, object]) -> None:
        options = asked.get("stream_options")
        options = options if isinstance(options, dict) else {}
        ids = bool(asked.get("return_token_ids"))
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        for at in range(self.tokens):
            if self.chunk_seconds:
                await asyncio.sleep(self.chunk_seconds)
            last = at == self.tokens - 1
            choice: dict[str, object] = {"index": 0, "delta": {"content": "word "}}
            choice |= {"logprobs": None, "finish_reason": "stop" if last else None}
            event: dict[str, object] = {"id": "chatcmpl-1", "object": "chat.completion.chunk"}
            event |= {"created": 1, "model": MODEL, "choices": [choice]}
            if ids:
                choice["token_ids"] = [at]
                if at == 0:
                    event["prompt_token_ids"] = list(range(PROMPT_TOKENS))
            if options.get("continuous_usage_stats"):
                event["usage"] = _usage(at + 1)
            self._chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
        if options.get("include_usage"):
            event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
            event |= {"model": MODEL, "choices": [], "usage": _usage(self.tokens)}
            self._chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n" % len(data) + data + b"\r\n")


async def main(port: int) -> None:
    """Serve on loopback until the process is ended."""
    server = await asyncio.get_running_loop().create_server(
        Replica, "127.0.0.1", port, backlog=2048
    )
    await server.serve_forever()


if __name__ == "__main__":
    Replica.service_seconds = float(sys.argv[2])
    Replica.tokens = int(sys.argv[3])
    Replica.chunk_seconds = float(sys.argv[4])
    asyncio.run(main(int(sys.argv[1])))
