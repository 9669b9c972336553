"""Asking for completions as a benchmark does: kept connections, answers that are only counted."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway_upstream import MODEL

TOKEN = "hft_ada-of-the-benchmark-01"
_LIMIT = 1 << 20


class UnexpectedAnswerError(Exception):
    """A server did not answer as the measurement needs it."""


@dataclass(frozen=True)
class Asked:
    """What many requests came to; seconds from the first byte sent to the last one read."""

    seconds: tuple[float, ...]
    wall: float

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """What one of a hundred takes longer than."""
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[98]

    def __str__(self) -> str:
        return f"p50 {self.p50 * 1000:.2f} ms, p99 {self.p99 * 1000:.2f} ms, n={len(self.seconds)}"


def together(*each: Asked) -> Asked:
    """Return several rounds as one."""
    return Asked(
        tuple(taken for asked in each for taken in asked.seconds), sum(asked.wall for asked in each)
    )


def ask(url: str, *, stream: bool, requests: int, connections: int = 1) -> Asked:
    """Ask so many times over so many kept connections."""
    return asyncio.run(_ask(url, _request(url, stream=stream), requests, connections))


async def _ask(url: str, request: bytes, requests: int, connections: int) -> Asked:
    parts = urlsplit(url)
    taken: list[float] = []
    began = time.perf_counter()

    async def one(count: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_LIMIT)
        try:
            for _ in range(count):
                start = time.perf_counter()
                writer.write(request)
                await _answer(reader)
                taken.append(time.perf_counter() - start)
        finally:
            writer.close()

    shares = [requests // connections] * connections
    await asyncio.gather(*map(one, shares))
    return Asked(tuple(taken), time.perf_counter() - began)


async def hold_open(url: str, streams: int) -> tuple[int, int]:
    """Open so many streams at once; return how many ended whole, and how many were open at once."""
    request = _request(url, stream=True)
    parts = urlsplit(url)
    whole = started = 0
    everybody = asyncio.Event()

    async def one() -> None:
        nonlocal whole, started
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_LIMIT)
        try:
            writer.write(request)
            await reader.readuntil(b"data: ")
            started += 1
            if started == streams:
                everybody.set()
            await reader.readuntil(b"data: [DONE]")
            # who ended before the last one had begun was not open beside it
            whole += everybody.is_set()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(streams)))
    return whole, started


def _request(url: str, *, stream: bool) -> bytes:
    parts = urlsplit(url)
    messages = [{"role": "user", "content": "How long is a piece of string? " * 4}]
    body = json.dumps(
        {"model": MODEL, "messages": messages, "max_tokens": 64, "stream": stream}
    ).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        rest = await asyncio.wait_for(reader.read(500), 5)
        raise UnexpectedAnswerError(f"{head[:300]!r} {rest!r}")
    at = head.find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
        return
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        await reader.readexactly(size + 2)
        if not size:
            return
