"""Which recorded packets count as meant for an outside."""

from __future__ import annotations

import ipaddress
import struct
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.lab import capture

if TYPE_CHECKING:
    from pathlib import Path

LAB = ["198.18.1.0/24", "fd98:12:1::/64"]


def frame(kind: int, body: bytes) -> bytes:
    return b"\x02" * 12 + struct.pack("!H", kind) + body


def ip(source: str, destination: str) -> bytes:
    ends = [ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed]
    if len(ends[0]) == 4:
        return frame(0x0800, bytes(9) + b"\x11" + bytes(2) + ends[0] + ends[1])
    return frame(0x86DD, bytes(6) + b"\x11" + bytes(1) + ends[0] + ends[1])


def arp(source: str, target: str) -> bytes:
    sender, asked = ipaddress.ip_address(source).packed, ipaddress.ip_address(target).packed
    return frame(0x0806, bytes(14) + sender + bytes(6) + asked)


def recording(path: Path, *frames: bytes) -> Path:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 256, 1)
    records = [struct.pack("<4I", 1, 2, len(one), len(one)) + one for one in frames]
    path.write_bytes(head + b"".join(records))
    return path


@pytest.mark.parametrize(
    "one",
    [
        ip("198.18.1.21", "198.18.2.21"),
        ip("203.0.113.5", "198.18.1.21"),
        ip("198.18.1.21", "169.254.169.254"),
        ip("fd98:12:1::21", "2001:db8::1"),
        ip("fd98:12:1::21", "fd98:12:2::1"),
        arp("198.18.1.21", "192.168.0.1"),
        frame(0x8100, bytes(2) + ip("198.18.1.21", "8.8.8.8")[12:]),
    ],
)
def test_an_address_outside_is_found(tmp_path: Path, one: bytes) -> None:
    inside = ip("198.18.1.21", "198.18.1.11")
    found = capture.foreign_packets(recording(tmp_path / "r", inside, one, inside), LAB)
    assert len(found) == 1


@pytest.mark.parametrize(
    "one",
    [
        ip("198.18.1.21", "198.18.1.11"),
        ip("fd98:12:1::21", "fd98:12:1::11"),
        ip("fe80::1", "ff02::1"),
        ip("::", "ff02::16"),
        ip("0.0.0.0", "255.255.255.255"),
        ip("198.18.1.21", "224.0.0.251"),
        arp("198.18.1.21", "198.18.1.1"),
        frame(0x88CC, b"not an internet protocol"),
        b"short",
    ],
)
def test_what_stays_is_not(tmp_path: Path, one: bytes) -> None:
    assert capture.foreign_packets(recording(tmp_path / "r", one), LAB) == []


def test_addresses_allowed_by_the_caller_are_inside(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", ip("198.18.1.21", "192.0.2.1"))
    assert capture.foreign_packets(path, [*LAB, "192.0.2.1/32"]) == []
    assert capture.foreign_packets(path, LAB)[0].destination == "192.0.2.1"


@pytest.mark.parametrize("content", [b"", b"text that is long enough to be a header"])
def test_another_file_is_refused_not_read_as_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ValueError, match="is not a recording"):
        capture.foreign_packets(tmp_path / "r", LAB)
