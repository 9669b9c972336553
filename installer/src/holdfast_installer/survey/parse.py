"""Turns what a host printed into facts; anything unexpected raises `ValueError`: unread."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import defaultdict
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Literal

from holdfast_installer.survey.facts import (
    ApplyLock,
    Cpu,
    Interface,
    Kernel,
    Listener,
    Memory,
    Mount,
    NumaNode,
    OperatingSystem,
    Power,
    Releases,
    ServedUnit,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

KIB = 1024


def sections(lines: Iterable[str]) -> dict[str, list[str]]:
    """Split the output of a script at its `@@name` lines."""
    found: dict[str, list[str]] = {}
    here = found.setdefault("", [])
    for line in lines:
        if line.startswith("@@"):
            here = found.setdefault(line[2:].strip(), [])
        else:
            here.append(line)
    return found


def os_release(lines: list[str]) -> OperatingSystem:
    """Parse /etc/os-release."""
    values: dict[str, str] = {}
    for line in lines:
        name, found, value = line.partition("=")
        if found and not line.startswith("#"):
            values[name.strip()] = "".join(shlex.split(value))
            if name == "PRETTY_NAME":
                values[name] = " ".join(shlex.split(value))
    if "ID" not in values:
        raise ValueError("os-release has no ID")
    return OperatingSystem(
        id=values["ID"],
        version=values.get("VERSION_ID", ""),
        codename=values.get("VERSION_CODENAME", ""),
        name=values.get("PRETTY_NAME", values["ID"]),
    )


def kernel(lines: list[str]) -> Kernel:
    """Parse `uname -r`, `uname -m`, `systemd-detect-virt` and the same for containers."""
    if len(lines) != 4:
        raise ValueError(f"4 lines expected, {len(lines)} found")
    release, architecture, virtualisation, container = lines
    return Kernel(
        release=release,
        architecture=architecture,
        virtualisation=virtualisation,
        container=container != "none",
    )


def cpuinfo(lines: list[str]) -> Cpu:
    """Parse /proc/cpuinfo of x86 and arm64."""
    processors: list[dict[str, str]] = []
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if name == "processor":
            processors.append({})
        if processors and name:
            processors[-1][name] = value
    if not processors:
        raise ValueError("no processor listed")
    first = processors[0]
    flags = first.get("flags", first.get("Features", "")).split()
    if not flags:
        raise ValueError("no CPU flags listed")
    return Cpu(
        model=first.get("model name", first.get("CPU part", "unknown")),
        vendor=first.get("vendor_id", first.get("CPU implementer", "unknown")),
        threads=len(processors),
        sockets=len({one.get("physical id", "0") for one in processors}),
        flags=tuple(sorted(flags)),
    )


def numa(lines: list[str]) -> tuple[NumaNode, ...]:
    """Parse lines of node number, CPU list (may be empty) and KiB of memory."""
    nodes = []
    for line in lines:
        parts = line.split()
        nodes.append(
            NumaNode(
                node=int(parts[0]),
                cpus=parts[1] if len(parts) == 3 else "",
                memory_bytes=int(parts[-1]) * KIB,
            )
        )
    if not nodes:
        raise ValueError("no memory node listed")
    return tuple(nodes)


def meminfo(lines: list[str]) -> Memory:
    """Parse /proc/meminfo."""
    values = {
        match[1]: int(match[2]) * KIB
        for line in lines
        if (match := re.match(r"(\w+):\s+(\d+) kB", line))
    }
    try:
        return Memory(total_bytes=values["MemTotal"], available_bytes=values["MemAvailable"])
    except KeyError as missing:
        raise ValueError(f"meminfo has no {missing}") from missing


def mounts(lines: list[str]) -> tuple[Mount, ...]:
    """Parse `df -PkT`; the last mount on a target is the one that shows."""
    found: dict[str, Mount] = {}
    for line in lines[1:]:
        match = re.match(r"(.+?)\s+(\S+)\s+(\d+)\s+(-?\d+)\s+(-?\d+)\s+\S+\s+(/.*)$", line)
        if match is None:
            continue
        found[match[6]] = Mount(
            target=match[6],
            source=match[1],
            kind=match[2],
            size_bytes=int(match[3]) * KIB,
            free_bytes=max(0, int(match[5])) * KIB,
        )
    if "/" not in found:
        raise ValueError("no root file system listed")
    return tuple(found.values())


def interfaces(lines: list[str]) -> tuple[Interface, ...]:
    """Parse `ip -json address`."""
    listed = json.loads("\n".join(lines))
    return tuple(
        Interface(
            name=one["ifname"],
            mac=one.get("address", ""),
            state=one.get("operstate", "unknown").lower(),
            addresses=tuple(
                f"{address['local']}/{address['prefixlen']}"
                for address in one.get("addr_info", [])
                if "local" in address
            ),
        )
        for one in listed
        if "ifname" in one
    )


def listeners(lines: list[str]) -> tuple[Listener, ...]:
    """Join the kernel's socket tables with the processes that hold the sockets."""
    parts = sections(lines)
    for table in ("tcp", "udp", "sockets", "comm", "cgroup"):
        if table not in parts:
            raise ValueError(f"the table {table} is missing")
    holders: dict[str, set[str]] = defaultdict(set)
    for line in parts["sockets"]:
        if match := re.match(r"/proc/(\d+)/fd/\d+ socket:\[(\d+)\]$", line):
            holders[match[2]].add(match[1])
    names = _by_process(parts["comm"], "comm")
    units = {
        process: _unit(path) for process, path in _by_process(parts["cgroup"], "cgroup").items()
    }
    # A socket may be closed between the kernel's table and the look at its holder.
    still = set(parts["still"]) if "still" in parts else None
    found: set[Listener] = set()
    tables: tuple[tuple[str, Literal["tcp", "udp"]], ...] = (
        ("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"),
    )  # fmt: skip
    for table, protocol in tables:
        for line in parts.get(table, []):
            local, inode = line.split()
            address, port = _socket_address(local)
            # systemd keeps a socket it hands on; the service it went to is the one to name.
            processes = sorted(holders.get(inode, ()), key=lambda one: (one == "1", int(one)))
            if not processes and still is not None and inode not in still:
                continue
            first = processes[0] if processes else ""
            found.add(
                Listener(
                    protocol=protocol,
                    address=address,
                    port=port,
                    process=names.get(first, ""),
                    unit=units.get(first, ""),
                )
            )
    return tuple(sorted(found, key=lambda one: (one.port, one.protocol, one.address, one.unit)))


def _by_process(lines: list[str], file: str) -> dict[str, str]:
    pattern = re.compile(rf"/proc/(\d+)/{file}:(.*)$")
    return {match[1]: match[2] for line in lines if (match := pattern.match(line))}


def _unit(cgroup: str) -> str:
    """Return the innermost unit of a line of /proc/PID/cgroup, as systemd names it."""
    path = cgroup.split(":", 2)[-1]
    named = [part for part in path.split("/") if part.endswith((".service", ".scope", ".socket"))]
    return named[-1].replace("\\x2d", "-") if named else ""


def _socket_address(local: str) -> tuple[str, int]:
    """Decode the kernel's hexadecimal address (words in host order) and port."""
    digits, _, port = local.partition(":")
    raw = bytes.fromhex(digits)
    words = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    address = IPv4Address(words) if len(words) == 4 else IPv6Address(words)
    return str(address), int(port, 16)


def power(lines: list[str]) -> Power:
    """Parse lines of a RAPL domain's name and whether its counter could be read."""
    domains = [line.rsplit(maxsplit=1) for line in lines if line.strip()]
    readable = [name for name, state in domains if state == "yes"]
    return Power(readable=bool(readable), domains=tuple(name for name, _ in domains))


def releases(lines: list[str]) -> Releases:
    """Parse the `current` link and the folders beside it."""
    parts = sections(lines)
    current = parts["current"][0].rstrip("/").rsplit("/", 1)[-1] if parts["current"] else ""
    return Releases(current=current, installed=tuple(sorted(filter(None, parts["installed"]))))


def replicas(lines: list[str]) -> tuple[ServedUnit, ...]:
    """Parse a section for each vLLM unit: lines of a key and its value; half a unit is none."""
    found = []
    parts = sections(lines)
    parts.pop("there")
    for unit, said in parts.items():
        values = dict(line.split(" ", 1) for line in said if " " in line)
        if not {"model", "commit", "port"} <= set(values):
            continue
        found.append(
            ServedUnit(
                unit=unit,
                model=values["model"],
                commit=values["commit"],
                port=int(values["port"]),
                devices=tuple(filter(None, values.get("devices", "").split(","))),
            )
        )
    return tuple(sorted(found, key=lambda one: one.port))


def apply_lock(lines: list[str]) -> ApplyLock:
    """Look for the lock file's device and inode in the kernel's list of held locks."""
    parts = sections(lines)
    if not parts["file"]:
        return ApplyLock(held=False, holder="")
    device, inode = (int(part) for part in parts["file"][0].split())
    key = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    held = any("FLOCK" in line and f" {key} " in line for line in parts["locks"])
    return ApplyLock(held=held, holder=_holder("\n".join(parts["holder"])) if held else "")


def _holder(text: str) -> str:
    try:
        said = json.loads(text)
        return f"{said['operator']} on {said['machine']} since {said['since']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        return text.strip()
