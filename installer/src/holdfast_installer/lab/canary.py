"""The lab's canary: whatever leaves a host by accident arrives here, is answered and noted.

Plain Python, started in the canary's namespace as `python canary.py '{"addresses": [...],
"control": "198.18.N.1", "operator": "198.18.N.2"}'`. On every address it echoes what comes in
by TCP and UDP on the ports below, and answers DNS on 53: any A is 192.0.2.1, any AAAA
2001:db8::1. The operator, and nobody else, reads what arrived over HTTP on port 7000:
`/seen/<nonce>`, `/seen` (everything), `/names` (DNS questions), `/healthz`.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import ipaddress
import json
import struct
import sys
import time
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

PORTS = (7007, 53, 80, 443, 853)
CONTROL_PORT = 7000
ANSWERS = {1: ipaddress.ip_address("192.0.2.1"), 28: ipaddress.ip_address("2001:db8::1")}
_DNS_PORT = 53
_HEADER = struct.Struct("!6H")
_REMEMBERED = 100_000
_KEPT_BYTES = 512
_PATIENCE = 30.0

Seen = dict[str, Any]


class Question(NamedTuple):
    """The first question of a DNS message, and where it ends."""

    name: str
    kind: int
    end: int


def parse_question(message: bytes) -> Question | None:
    """Return the question of a DNS query, or None where the bytes are not one."""
    if len(message) < _HEADER.size + 5:
        return None
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if flags & 0xF800 or questions != 1 or answers:
        return None
    labels, at = [], _HEADER.size
    while at < len(message) and message[at]:
        size = message[at]
        if size > 63 or at + 1 + size >= len(message):
            return None
        labels.append(message[at + 1 : at + 1 + size].decode("ascii", "replace"))
        at += 1 + size
    if at + 5 > len(message):
        return None
    return Question(".".join(labels), struct.unpack_from("!H", message, at + 1)[0], at + 5)


def answer(message: bytes, question: Question) -> bytes:
    """Return the reply to a query: one address for A and AAAA, nothing for other types."""
    identity, flags = struct.unpack_from("!2H", message)
    address = ANSWERS.get(question.kind)
    reply = _HEADER.pack(identity, 0x8400 | flags & 0x0100, 1, 1 if address else 0, 0, 0)
    reply += message[_HEADER.size : question.end]
    if address:
        packed = address.packed
        reply += struct.pack("!3HIH", 0xC00C, question.kind, 1, 0, len(packed)) + packed
    return reply


class Witness:
    """Remembers what arrived, up to a bound."""

    def __init__(self) -> None:
        self.seen: collections.deque[Seen] = collections.deque(maxlen=_REMEMBERED)

    def note(self, protocol: str, source: Any, destination: Any, data: bytes) -> None:  # noqa: ANN401 - asyncio gives addresses as tuples of two shapes
        """Note one arrival; `data` is cut to its first bytes."""
        entry: Seen = {
            "time": time.time(),
            "protocol": protocol,
            "source": source[0],
            "destination": destination[0],
            "port": destination[1],
            "data": data[:_KEPT_BYTES].decode("utf-8", "backslashreplace"),
        }
        question = parse_question(data) if destination[1] == _DNS_PORT else None
        if question:
            entry["name"] = question.name
        self.seen.append(entry)

    def with_nonce(self, nonce: str) -> list[Seen]:
        """Return the arrivals that carried the nonce, in their bytes or in a DNS name."""
        wanted = nonce.lower()
        return [
            entry
            for entry in list(self.seen)
            if wanted in entry["data"].lower() or wanted in entry.get("name", "").lower()
        ]


class Udp(asyncio.DatagramProtocol):
    """Echoes datagrams, or answers them where they are DNS."""

    def __init__(self, witness: Witness, address: str, port: int) -> None:
        self.witness, self.here = witness, (address, port)
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        # Not an instance of it in Python 3.11, though it has its methods.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        """Note a datagram and answer it."""
        self.witness.note("udp", addr, self.here, data)
        question = parse_question(data) if self.here[1] == _DNS_PORT else None
        if self.transport:
            self.transport.sendto(answer(data, question) if question else data, addr)


async def serve_tcp(
    witness: Witness, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Note a connection, echo it, and answer it where it is DNS over TCP."""
    source, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    silent = True
    try:
        async with asyncio.timeout(_PATIENCE):
            while data := await reader.read(65536):
                silent = False
                message = data[2:] if here[1] == _DNS_PORT else b""
                question = parse_question(message)
                witness.note("tcp", source, here, message if question else data)
                if question:
                    reply = answer(message, question)
                    data = struct.pack("!H", len(reply)) + reply
                writer.write(data)
                await writer.drain()
    except (TimeoutError, OSError):
        pass  # the other side went away or said nothing more: what it said is noted
    finally:
        if silent:  # a handshake alone has left the host too
            witness.note("tcp", source, here, b"")
        writer.close()


async def serve_control(
    witness: Witness,
    operator: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Tell the operator, by HTTP, what arrived; anyone else gets 403."""
    try:
        async with asyncio.timeout(_PATIENCE):
            request = await reader.readuntil(b"\r\n\r\n")
        path = unquote(urlsplit(request.split()[1].decode("ascii", "replace")).path)
        status, body = 200, reply_to(witness, path)
        if writer.get_extra_info("peername")[0] != operator:
            status, body = 403, {"error": "only the operator's namespace may read this"}
        elif body is None:
            status, body = 404, {"error": "try /seen, /seen/<nonce>, /names or /healthz"}
        payload = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + payload)
        await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # not a request
    finally:
        writer.close()


def reply_to(witness: Witness, path: str) -> dict[str, Any] | None:
    """Return the body for a path of the control address, or None where there is none."""
    if path == "/healthz":
        return {"status": "ok"}
    if path == "/seen":
        return {"seen": list(witness.seen)}
    if path == "/names":
        return {"names": [entry for entry in list(witness.seen) if "name" in entry]}
    nonce = path.removeprefix("/seen/")
    return {"seen": witness.with_nonce(nonce)} if nonce and nonce != path else None


async def serve(setup: dict[str, Any]) -> None:
    """Listen on every address and port, then on the control address, until killed."""
    witness = Witness()
    loop = asyncio.get_running_loop()
    held: list[object] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_tcp(witness, reader, writer)

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_control(witness, setup["operator"], reader, writer)

    # One socket an address: the reply must come from the address that was asked.
    for address in setup["addresses"]:
        for port in PORTS:
            held.append(await asyncio.start_server(echo, address, port))
            udp = functools.partial(Udp, witness, address, port)
            held.append(await loop.create_datagram_endpoint(udp, local_addr=(address, port)))
    server = await asyncio.start_server(control, setup["control"], CONTROL_PORT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
