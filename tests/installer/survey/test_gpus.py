"""The vendors' tools, from samples (data/README.md says where they come from)."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_installer.survey.facts import UNREAD
from holdfast_installer.survey.gpus import gpus

DATA = Path(__file__).parent / "data"
GIB = 1024**3
BUS = {
    "nvidia": "0x10de 0x2330 0000:19:00.0 0x030200",
    "amd": "0x1002 0x74a1 0000:05:00.0 0x120000",
    "intel": "0x8086 0x56c0 0000:4d:00.0 0x038000",
}


def output(bus: tuple[str, ...] = (), **tools: str) -> list[str]:
    lines = ["@@pci", *bus]
    for tool in ("nvidia", "amd", "rocm", "intel"):
        lines += [f"@@{tool}", *tools.get(tool, "absent").splitlines()]
    return lines


def sample(name: str) -> str:
    return (DATA / name).read_text()


@pytest.mark.parametrize(
    ("tool", "file", "model", "memory", "driver"),
    [
        ("nvidia", "nvidia-smi.csv", "NVIDIA H100 80GB HBM3", 81559 * 1024**2, "550.90.07"),
        ("amd", "amd-smi.json", "AMD Instinct MI300X", 196592 * 1024**2, "6.12.12"),
        ("amd", "amd-smi-rocm6.json", "AMD Instinct MI210", 65520 * 1024**2, "6.8.5"),
        ("rocm", "rocm-smi.json", "Radeon RX 7900 XT", 21458059264, "6.8.5"),
        ("intel", "xpu-smi.csv", "Intel(R) Data Center GPU Flex 170", 14248 * 1024**2, "I915"),
    ],
)
def test_each_tool(tool: str, file: str, model: str, memory: int, driver: str) -> None:
    found = gpus(output(**{tool: sample(file)}))
    assert found[0].model == model
    assert found[0].memory_bytes == memory
    assert found[0].driver.startswith(driver)
    assert found[0].identity


def test_two_cards_are_two() -> None:
    assert len(gpus(output(nvidia=sample("nvidia-smi.csv")))) == 2


def test_what_a_tool_does_not_know_is_unread_not_nothing() -> None:
    assert gpus(output(nvidia=sample("nvidia-smi-mig-na.csv")))[0].memory_bytes == UNREAD
    assert gpus(output(intel=sample("xpu-smi-unknown-memory.csv")))[0].memory_bytes == UNREAD


def test_both_tools_of_amd_are_one_set_of_cards() -> None:
    found = gpus(output((BUS["amd"],), amd=sample("amd-smi.json"), rocm=sample("rocm-smi.json")))
    assert [gpu.model for gpu in found] == ["AMD Instinct MI300X"]


@pytest.mark.parametrize("vendor", sorted(BUS))
def test_a_card_without_its_driver_is_seen_on_the_bus(vendor: str) -> None:
    (only,) = gpus(output((BUS[vendor],)))
    assert (only.vendor, only.memory_bytes, only.driver) == (vendor, UNREAD, "")


def test_two_cards_without_a_driver_are_two() -> None:
    other = BUS["nvidia"].replace("19:", "1a:")
    assert len(gpus(output((BUS["nvidia"], other)))) == 2


def test_a_tool_that_fails_leaves_what_the_bus_shows() -> None:
    failed = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\nfailed"
    (only,) = gpus(output((BUS["nvidia"],), nvidia=failed))
    assert only.memory_bytes == UNREAD


def test_a_board_controllers_screen_is_no_gpu() -> None:
    assert gpus(output(("0x1a03 0x2000 0000:03:00.0 0x030000",))) == ()


def test_no_gpu_is_an_answer() -> None:
    assert gpus(output()) == ()


def test_output_cut_short_is_not_an_answer() -> None:
    with pytest.raises(KeyError):
        gpus(["@@pci", "@@nvidia"])
