"""Record every frame that enters the lab's bridge, and find those that meant to leave the lab.

Plain Python, so that `python capture.py FILE` runs in the bridge's namespace. The file is a
pcap of the first 256 bytes of each frame, seen once: where a station's port takes it in.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SNAP = 256
_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_RECEIVE_BUFFER = 256 << 20
_BRIDGE = "bridge"
_FILE_HEADER = struct.Struct("<IHHiIII")
_MAGIC = 0xA1B2C3D4
_RECORD = struct.Struct("<4I")
_IPV4, _ARP, _IPV6, _VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
_LINK_LOCAL = ipaddress.ip_network("fe80::/10")
_STATISTICS = ".statistics"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Packet(NamedTuple):
    """A packet between two addresses; `protocol` is the IP protocol number, or "arp"."""

    time: float
    source: str
    destination: str
    protocol: str
    length: int


def _attach_filter(link: socket.socket) -> None:
    """Drop, in the kernel, what a port sends out: the port it came in by has shown it."""
    program = [
        (0x28, 0, 0, 0xFFFFF000 + 4),  # load the packet type
        (0x15, 0, 1, 4),  # outgoing?
        (0x06, 0, 0, 0),  # then nothing of it
        (0x06, 0, 0, SNAP),  # else its first bytes
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    option = struct.pack("HL", len(program), ctypes.addressof(code))
    link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def record(path: Path) -> None:
    """Record into `path` until SIGTERM or SIGINT; then write how many frames were lost."""
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    everything = socket.htons(_ETH_P_ALL)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as link,
        path.open("wb") as file,
    ):
        _attach_filter(link)
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        link.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)  # the length before the cut
        _discard(link)  # what came before the filter, perhaps twice
        link.settimeout(0.2)
        file.write(_FILE_HEADER.pack(_MAGIC, 2, 4, 0, 0, SNAP, 1))
        file.flush()
        frames = _drain(link, file, stopped)
        _, lost = struct.unpack("II", link.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    statistics = {"frames": frames, "lost": lost}
    path.with_name(path.name + _STATISTICS).write_text(json.dumps(statistics) + "\n")


def _discard(link: socket.socket) -> None:
    link.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            link.recv(1)


def _drain(link: socket.socket, file: BinaryIO, stopped: list[int]) -> int:
    frames, buffer = 0, bytearray(SNAP)
    view = memoryview(buffer)
    while True:
        try:
            kept, ancillary, _, sender = link.recvmsg_into([buffer], 64)
        except TimeoutError:
            file.flush()
            if stopped:  # asked to stop, and nothing is left in the queue
                return frames
            continue
        if sender[0] == _BRIDGE:
            continue  # the bridge's own copy of what a port took in
        now = time.time()
        size = struct.unpack_from("=II", ancillary[0][2])[1]
        file.write(_RECORD.pack(int(now), int(now % 1 * 1e6), kept, size))
        file.write(view[:kept])
        frames += 1


def statistics(path: Path) -> dict[str, int]:
    """Return {"frames", "lost"} of a finished recording; an unfinished one is an error."""
    counted: dict[str, int] = json.loads(path.with_name(path.name + _STATISTICS).read_text())
    return counted


def read(path: Path) -> Iterator[tuple[float, int, bytes]]:
    """Yield (time, length on the wire, first bytes) of every frame."""
    with path.open("rb") as file:
        header = file.read(_FILE_HEADER.size)
        if len(header) < _FILE_HEADER.size or _FILE_HEADER.unpack(header)[0] != _MAGIC:
            raise ValueError(f"{path} is not a recording of the lab")
        while len(head := file.read(_RECORD.size)) == _RECORD.size:
            seconds, micros, kept, length = _RECORD.unpack(head)
            yield seconds + micros / 1e6, length, file.read(kept)


def addresses(frame: bytes) -> tuple[Address, Address, str] | None:
    """Return source, destination and protocol of a frame, or None where it has no addresses."""
    if len(frame) < 14:
        return None
    at, (kind,) = 14, struct.unpack_from("!H", frame, 12)
    if kind == _VLAN and len(frame) >= 18:
        at, (kind,) = 18, struct.unpack_from("!H", frame, 16)
    body = frame[at:]
    if kind == _IPV4 and len(body) >= 20:
        return ipaddress.IPv4Address(body[12:16]), ipaddress.IPv4Address(body[16:20]), str(body[9])
    if kind == _IPV6 and len(body) >= 40:
        return ipaddress.IPv6Address(body[8:24]), ipaddress.IPv6Address(body[24:40]), str(body[6])
    if kind == _ARP and len(body) >= 28:
        return ipaddress.IPv4Address(body[14:18]), ipaddress.IPv4Address(body[24:28]), "arp"
    return None


def packets(path: Path) -> Iterator[Packet]:
    """Yield every packet of a recording that has addresses."""
    for when, length, frame in read(path):
        if found := addresses(frame):
            source, destination, protocol = found
            yield Packet(when, str(source), str(destination), protocol, length)


def foreign_packets(path: Path, allowed_networks: Iterable[str]) -> list[Packet]:
    """Return the packets from or to an address outside the networks.

    What stays on a link whatever its address (IPv6 link-local, multicast, broadcast,
    unspecified) is no packet to an outside, and is left out. IPv4 link-local is not: hosts
    here have no such route, and 169.254.169.254 is where clouds keep credentials.
    """
    networks = [ipaddress.ip_network(network) for network in allowed_networks]
    return [
        packet
        for packet in packets(path)
        if _is_foreign(packet.source, networks) or _is_foreign(packet.destination, networks)
    ]


def _is_foreign(text: str, networks: list[Network]) -> bool:
    address = ipaddress.ip_address(text)
    stays = address.is_multicast or address.is_unspecified or address in _LINK_LOCAL
    if stays or text == "255.255.255.255":
        return False
    return not any(address in network for network in networks)


if __name__ == "__main__":
    record(Path(sys.argv[1]))
