"""Reads the vendors' tools: nvidia-smi, amd-smi, rocm-smi, xpu-smi; and the PCI bus behind them."""

from __future__ import annotations

import csv
import json
import re
from typing import Any  # Any: the vendors' JSON

from holdfast_installer.survey.facts import UNREAD, Gpu, Unread, Vendor
from holdfast_installer.survey.parse import sections

MIB = 1024**2
VENDORS: dict[str, Vendor] = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
ABSENT, FAILED = "absent", "failed"
UNITS = {"B": 1, "KB": 1024, "MB": MIB, "MIB": MIB, "GB": 1024 * MIB, "GIB": 1024 * MIB}


def gpus(lines: list[str]) -> tuple[Gpu, ...]:
    """Return the host's GPUs: from the vendor's tool, or from the bus where no tool answers.

    A tool that is there and fails still leaves what the bus shows, with memory unread.
    """
    parts = sections(lines)
    readers = (("nvidia", nvidia), ("amd", amd_smi), ("rocm", rocm_smi), ("intel", xpu_smi))
    found: dict[Vendor, list[Gpu]] = {}
    for tool, reader in readers:
        text = parts[tool]
        if not text or FAILED in text or text[0] == ABSENT:
            continue
        listed = reader("\n".join(text))
        if listed:
            found.setdefault(listed[0].vendor, listed)
    for line in parts["pci"]:
        vendor_id, device_id, slot, _ = line.split()
        vendor = VENDORS.get(vendor_id)
        if vendor is not None and (vendor not in found or _from_bus(found[vendor])):
            found.setdefault(vendor, []).append(
                Gpu(
                    vendor=vendor,
                    model=f"PCI device {vendor_id[2:]}:{device_id[2:]}",
                    memory_bytes=UNREAD,
                    driver="",
                    identity=slot,
                )
            )
    return tuple(gpu for listed in found.values() for gpu in listed)


def _from_bus(listed: list[Gpu]) -> bool:
    return all(gpu.model.startswith("PCI device ") for gpu in listed)


def nvidia(text: str) -> list[Gpu]:
    """Parse `nvidia-smi --query-gpu=name,memory.total,driver_version,uuid` in MiB without units."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [
        Gpu(
            vendor="nvidia",
            model=row[0],
            memory_bytes=_number(row[1], MIB),
            driver=row[2],
            identity=row[3],
        )
        for row in rows
        if len(row) == 4
    ]


def amd_smi(text: str) -> list[Gpu]:
    """Parse `amd-smi static --asic --driver --vram --json`: a list, since ROCm 7 in `gpu_data`."""
    read: Any = json.loads(text)
    listed = read["gpu_data"] if isinstance(read, dict) else read
    return [
        Gpu(
            vendor="amd",
            model=one["asic"]["market_name"],
            memory_bytes=_measure(one.get("vram", {}).get("size")),
            driver=str(one.get("driver", {}).get("version", "")),
            identity=str(one["asic"].get("asic_serial", one["gpu"])),
        )
        for one in listed
    ]


def rocm_smi(text: str) -> list[Gpu]:
    """Parse `rocm-smi ... --json`: one object a card, and one named `system` for the driver."""
    read: dict[str, dict[str, str]] = json.loads(text)
    driver = read.get("system", {}).get("Driver version", "")
    return [
        Gpu(
            vendor="amd",
            model=card.get("Card Series") or card.get("Card series") or card["Card Model"],
            memory_bytes=_number(card.get("VRAM Total Memory (B)", ""), 1),
            driver=driver,
            identity=card.get("Unique ID", name),
        )
        for name, card in sorted(read.items())
        if name.startswith("card")
    ]


def xpu_smi(text: str) -> list[Gpu]:
    """Parse `xpu-smi discovery --dump 2,4,8,16`: a header line, then one line a device."""
    rows = csv.DictReader(line for line in text.splitlines() if line.strip())
    return [
        Gpu(
            vendor="intel",
            model=row["Device Name"],
            memory_bytes=_measure(row["Memory Physical Size"]),
            driver=row.get("Driver Version") or "",
            identity=row.get("SOC UUID") or row.get("UUID") or "",
        )
        for row in rows
    ]


def _number(text: str, unit: int) -> int | Unread:
    try:
        return int(float(text) * unit)
    except ValueError:
        return UNREAD


def _measure(size: object) -> int | Unread:
    """Read "14248.00 MiB" or {"value": 196592, "unit": "MB"}; the tools' MB are 2**20 bytes."""
    if isinstance(size, dict):
        size = f"{size.get('value')} {size.get('unit')}"
    match = re.fullmatch(r"([0-9.]+) ([A-Za-z]+)", str(size).strip())
    if match is None or match[2].upper() not in UNITS or float(match[1]) == 0:
        return UNREAD
    return int(float(match[1]) * UNITS[match[2].upper()])
