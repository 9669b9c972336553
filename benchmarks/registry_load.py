"""Requests as a benchmark makes them: one stream drained at full speed, and many small ones.

The client shares the machine with the server, so it does as little as there is to do: bytes are
received into one buffer and forgotten, answers are read to their Content-Length and not parsed.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import statistics
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUFFER = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class UnexpectedAnswerError(Exception):
    """A server did not answer as the measurement needs it."""


@dataclass(frozen=True)
class Load:
    """What many small requests came to."""

    per_second: float
    p50: float  # seconds
    p95: float
    p99: float
    count: int

    def __str__(self) -> str:
        times = ", ".join(
            f"{name} {seconds * 1000:.1f} ms"
            for name, seconds in (("p50", self.p50), ("p95", self.p95), ("p99", self.p99))
        )
        return f"{self.per_second:.0f}/s, {times} (n={self.count})"


def drain(url: str, token: str, ranges: Sequence[tuple[int, int]] = ()) -> tuple[float, int]:
    """GET a file, or these (first, last) ranges of it over one connection; seconds and bytes."""
    parts = urlsplit(url)
    buffer = memoryview(bytearray(_BUFFER))
    received = 0
    began = time.monotonic()
    with socket.create_connection((parts.hostname or "", parts.port or 80)) as connection:
        for each in ranges or [None]:
            wanted = (200, "") if each is None else (206, f"Range: bytes={each[0]}-{each[1]}\r\n")
            connection.sendall(_request("GET", url, token, wanted[1]))
            received += _drained(connection, buffer, wanted[0])
    return time.monotonic() - began, received


def _drained(connection: socket.socket, buffer: memoryview, status: int) -> int:
    head = b""
    while b"\r\n\r\n" not in head:
        got = connection.recv(65536)
        if not got:
            raise UnexpectedAnswerError(f"closed after {head[:200]!r}")
        head += got
    head, _, rest = head.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not head.startswith(f"HTTP/1.1 {status}".encode()) or length is None:
        raise UnexpectedAnswerError(head[:300].decode(errors="replace"))
    left = int(length[1]) - len(rest)
    while left:
        count = connection.recv_into(buffer, min(left, _BUFFER))
        if not count:
            raise UnexpectedAnswerError(f"closed {left} bytes too early")
        left -= count
    return int(length[1])


def fetch(url: str, token: str, method: str = "GET") -> tuple[str, Any]:
    """Ask once; return where the answer came from at last, and its JSON (None without a body)."""
    request = urllib.request.Request(
        url, method=method, headers={"Authorization": f"Bearer {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            content = answer.read()
            return answer.url, json.loads(content) if content else None
    except OSError as error:
        raise UnexpectedAnswerError(f"{method} {url}: {error}") from error


def press(
    urls: Sequence[str],
    token: str,
    *,
    method: str = "GET",
    seconds: float = 5,
    connections: int = 8,
) -> Load:
    """Ask for these URLs in turn, for so long, over so many kept connections."""
    return asyncio.run(_press(urls, token, method, seconds, connections))


async def _press(
    urls: Sequence[str], token: str, method: str, seconds: float, connections: int
) -> Load:
    taken: list[float] = []
    asked = [_request(method, url, token) for url in urls]
    began = time.monotonic()

    async def one(first: int) -> None:
        parts = urlsplit(urls[0])
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_BUFFER)
        number = first
        try:
            while (start := time.monotonic()) - began < seconds:
                writer.write(asked[number % len(asked)])
                number += connections
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise UnexpectedAnswerError(head[:300].decode(errors="replace"))
                if method != "HEAD":
                    if length is None:
                        raise UnexpectedAnswerError(f"no length: {head[:300]!r}")
                    await reader.readexactly(int(length[1]))
                taken.append(time.monotonic() - start)
        finally:
            writer.close()

    await asyncio.gather(*(one(first) for first in range(connections)))
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return Load(
        len(taken) / (time.monotonic() - began),
        statistics.median(taken),
        cuts[94],
        cuts[98],
        len(taken),
    )


def _request(method: str, url: str, token: str, more: str = "") -> bytes:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return (
        f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {token}\r\n{more}\r\n"
    ).encode()
