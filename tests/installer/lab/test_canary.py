"""The canary on loopback: echo, DNS, and the record."""

from __future__ import annotations

import asyncio
import struct

import pytest

from holdfast_installer.lab import canary


def query(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!xHH", kind, 1)


def test_a_question_is_read() -> None:
    assert canary.parse_question(query("a.example.org", 28))[:2] == ("a.example.org", 28)


@pytest.mark.parametrize("cut", range(1, len(query("a.example.org"))))
def test_a_cut_question_is_no_question(cut: int) -> None:
    assert canary.parse_question(query("a.example.org")[:-cut]) is None


def test_other_bytes_are_no_question() -> None:
    assert canary.parse_question(b"\x16\x03\x01 a TLS hello of some length") is None
    answered = bytearray(query("a.b"))
    answered[2] |= 0x80
    assert canary.parse_question(bytes(answered)) is None


@pytest.mark.parametrize(
    ("kind", "address"),
    [(1, bytes([192, 0, 2, 1])), (28, bytes.fromhex("20010db8000000000000000000000001"))],
)
def test_an_address_question_gets_the_canarys_address(kind: int, address: bytes) -> None:
    message = query("a.example.org", kind)
    question = canary.parse_question(message)
    assert question
    reply = canary.answer(message, question)
    assert reply[:2] == message[:2]
    assert struct.unpack_from("!H", reply, 6) == (1,)
    assert reply.endswith(struct.pack("!H", len(address)) + address)


def test_another_question_gets_no_address() -> None:
    message = query("a.example.org", 16)
    question = canary.parse_question(message)
    assert question
    assert struct.unpack_from("!H", canary.answer(message, question), 6) == (0,)


def test_a_nonce_is_found_in_bytes_and_in_names_of_any_case() -> None:
    witness = canary.Witness()
    witness.note("udp", ("198.18.1.21", 5), ("192.0.2.1", 53), query("NONCE-1.example.org"))
    witness.note("tcp", ("198.18.1.21", 5), ("192.0.2.1", 443), b"GET /nonce-1")
    witness.note("tcp", ("198.18.1.21", 5), ("192.0.2.1", 443), b"other")
    assert [entry["protocol"] for entry in witness.with_nonce("nonce-1")] == ["udp", "tcp"]
    names = canary.reply_to(witness, "/names")
    assert names
    assert [entry["name"] for entry in names["names"]] == ["NONCE-1.example.org"]


@pytest.mark.parametrize("path", ["/", "/seen/", "/other"])
def test_there_are_no_other_pages(path: str) -> None:
    assert canary.reply_to(canary.Witness(), path) is None


async def test_a_handshake_without_a_word_is_noted_too() -> None:
    witness = canary.Witness()
    server = await asyncio.start_server(
        lambda reader, writer: canary.serve_tcp(witness, reader, writer), "127.0.0.1", 0
    )
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.close()
        await writer.wait_closed()
        for _ in range(100):
            if witness.seen:
                break
            await asyncio.sleep(0.01)
    assert [(entry["protocol"], entry["data"]) for entry in witness.seen] == [("tcp", "")]


async def test_anyone_but_the_operator_is_refused() -> None:
    witness = canary.Witness()
    for operator, status in (("127.0.0.1", b"200"), ("198.18.1.2", b"403")):
        server = await asyncio.start_server(
            lambda reader, writer, who=operator: canary.serve_control(witness, who, reader, writer),
            "127.0.0.1",
            0,
        )
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET /seen HTTP/1.0\r\n\r\n")
            assert (await reader.read()).split()[1] == status
            writer.close()
            await writer.wait_closed()
