"""Names and addresses of a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import layout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    return tmp_path


def test_addresses_follow_role_and_number_whatever_the_order() -> None:
    lab = layout.new("x", 7)
    for name in ("serving-2", "control-1", "data-1", "serving-1", "witness-1"):
        lab.add_host(name)
    assert {host.name: (host.address, host.address6) for host in lab.hosts} == {
        "control-1": ("198.18.7.11", "fd98:12:7::11"),
        "serving-1": ("198.18.7.21", "fd98:12:7::21"),
        "serving-2": ("198.18.7.22", "fd98:12:7::22"),
        "data-1": ("198.18.7.101", "fd98:12:7::101"),
        "witness-1": ("198.18.7.102", "fd98:12:7::102"),
    }


def test_lab_json_is_read_back_as_it_was() -> None:
    lab = layout.new("x", 7)
    lab.add_host("control-1")
    lab.directory.mkdir(parents=True)
    lab.save()
    assert layout.load("x") == lab


def test_a_damaged_lab_json_names_the_way_out(state: Path) -> None:
    (state / "lab/x").mkdir(parents=True)
    (state / "lab/x/lab.json").write_text("{")
    with pytest.raises(HoldfastError) as caught:
        layout.load("x")
    assert caught.value.next_command == "holdfast lab down --name x"


@pytest.mark.parametrize("name", ["a-b", "A", "", "1a", "a" * 21, "a/b", "..", "a b"])
def test_a_lab_name_that_could_meet_another_is_refused(name: str) -> None:
    with pytest.raises(HoldfastError, match="cannot name a lab"):
        layout.check_lab_name(name)


@pytest.mark.parametrize("name", ["net", "canary", "operator", "-a", "a-", "a_b", "a" * 33, ""])
def test_a_host_name_that_could_meet_a_part_of_the_lab_is_refused(name: str) -> None:
    with pytest.raises(HoldfastError, match="cannot name a host"):
        layout.check_host_name(name)


def test_port_names_fit_the_kernel_and_stay_apart() -> None:
    names = ["control-1", "a-rather-long-name-1", "a-rather-long-name-2", "exactly-15-char"]
    ports = [layout.port(name) for name in names]
    assert max(map(len, ports)) <= 15
    assert len(set(ports)) == len(names)
    assert ports[0] == "control-1"


def test_a_host_the_lab_lacks_is_told_with_those_it_has() -> None:
    lab = layout.new("x", 1)
    lab.add_host("control-1")
    with pytest.raises(HoldfastError) as caught:
        lab.host("serving-9")
    assert "control-1" in caught.value.cause
