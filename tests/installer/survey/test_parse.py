"""What hosts print becomes facts; samples are data, the lab's are recorded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from holdfast_installer.survey import parse
from holdfast_installer.survey.commands import END, SCRIPTS, script
from holdfast_installer.survey.surveying import PARSERS

DATA = Path(__file__).parent / "data"


def lab(fact: str) -> list[str]:
    lines = (DATA / f"lab-{fact}.txt").read_text().splitlines()
    assert lines[-1] == END
    return lines[:-1]


def test_the_system_of_a_lab_host() -> None:
    system = parse.os_release(lab("os"))
    assert (system.id, system.version, system.codename) == ("debian", "12", "bookworm")
    assert system.name == "Debian GNU/Linux 12 (bookworm)"
    kernel = parse.kernel(lab("kernel"))
    assert (kernel.architecture, kernel.virtualisation) == ("x86_64", "systemd-nspawn")
    assert kernel.container


def test_a_machine_of_its_own_is_no_container() -> None:
    kernel = parse.kernel(["6.1.0-40-amd64", "x86_64", "none", "none"])
    assert not kernel.container
    assert not parse.kernel(["6.1.0-40-amd64", "x86_64", "kvm", "none"]).container


def test_the_processor_and_memory_of_a_lab_host() -> None:
    cpu = parse.cpuinfo(lab("cpu"))
    assert (cpu.threads, cpu.sockets, cpu.vendor) == (2, 1, "AuthenticAMD")
    assert {"avx2", "avx512f", "avx512_bf16"} <= set(cpu.flags)
    memory = parse.meminfo(lab("memory"))
    assert 0 < memory.available_bytes < memory.total_bytes
    nodes = parse.numa(lab("numa"))
    assert [node.cpus for node in nodes] == ["0-1"]
    assert nodes[0].memory_bytes > 0


def test_a_memory_node_without_processors_is_kept() -> None:
    assert parse.numa(["0 0-7 1024", "1 2048"])[1].cpus == ""


def test_an_arm_processor_has_features_for_flags() -> None:
    lines = [
        "processor\t: 0",
        "BogoMIPS\t: 50.00",
        "Features\t: fp asimd bf16 i8mm",
        "CPU implementer\t: 0x41",
        "CPU part\t: 0xd4f",
    ]
    cpu = parse.cpuinfo(lines)
    assert cpu.flags == ("asimd", "bf16", "fp", "i8mm")
    assert cpu.vendor == "0x41"


def test_file_systems_and_addresses_of_a_lab_host() -> None:
    mounts = {mount.target: mount for mount in parse.mounts(lab("mounts"))}
    assert mounts["/"].kind == "overlay"
    assert 0 < mounts["/"].free_bytes < mounts["/"].size_bytes
    addresses = {a for one in parse.interfaces(lab("interfaces")) for a in one.addresses}
    assert {"198.18.1.11/24", "fd98:12:1::11/64"} <= addresses


def test_a_mount_point_with_spaces_and_a_full_disk() -> None:
    lines = [
        "Filesystem Type 1024-blocks Used Available Capacity Mounted on",
        "/dev/vda1 ext4 100 120 -20 100% /",
        "/dev/vdb1 xfs 100 0 100 0% /srv/my data",
    ]
    full, spaced = parse.mounts(lines)
    assert full.free_bytes == 0
    assert spaced.target == "/srv/my data"


def test_listening_sockets_name_their_units() -> None:
    found = {
        (one.protocol, one.address, one.port): one for one in parse.listeners(lab("listeners"))
    }
    ssh = found["tcp", "0.0.0.0", 22]
    assert (ssh.process, ssh.unit) == ("sshd", "ssh.service")
    assert ("tcp", "::", 22) in found
    assert found["tcp", "198.18.1.11", 53].unit == "unbound.service"
    assert ("udp", "fd98:12:1::11", 53) in found


def test_a_socket_that_systemd_handed_on_names_the_service() -> None:
    lines = [
        "@@tcp", "00000000:01BB 7", "@@tcp6", "@@udp", "@@udp6",
        "@@sockets", "/proc/1/fd/9 socket:[7]", "/proc/40/fd/3 socket:[7]",
        "@@comm", "/proc/1/comm:systemd", "/proc/40/comm:web",
        "@@cgroup", "/proc/1/cgroup:0::/init.scope",
        "/proc/40/cgroup:0::/system.slice/system-web.slice/web@a\\x2db.service",
    ]  # fmt: skip
    (only,) = parse.listeners(lines)
    assert (only.process, only.unit, only.port) == ("web", "web@a-b.service", 443)


def test_a_socket_nobody_is_seen_to_hold_is_still_listed() -> None:
    lines = ["@@tcp", "00000000:01BB 7", "@@udp", "@@sockets", "@@comm", "@@cgroup"]
    (only,) = parse.listeners(lines)
    assert (only.process, only.unit) == ("", "")


def test_a_socket_that_was_closed_meanwhile_is_nobodys() -> None:
    lines = ["@@tcp", "0100007F:1F90 7", "0100007F:1F91 8", "@@udp", "@@sockets", "@@comm"]
    ports = {one.port for one in parse.listeners([*lines, "@@cgroup", "@@still", "8"])}
    assert ports == {8081}


def test_releases_and_the_one_in_use() -> None:
    nothing = parse.releases(lab("releases"))
    assert (nothing.current, nothing.installed) == ("", ())
    lines = ["@@current", "/opt/holdfast/releases/abc", "@@installed", "abc", "def"]
    some = parse.releases(lines)
    assert (some.current, some.installed) == ("abc", ("abc", "def"))


def test_energy_counters() -> None:
    assert not parse.power([]).readable
    read = parse.power(["package-0 yes", "dram no"])
    assert read.readable
    assert read.domains == ("package-0", "dram")


HOLDER = json.dumps({"operator": "ada", "machine": "desk", "process": "7", "since": "08:00"})


def test_an_apply_lock_is_held_only_where_the_kernel_says_so() -> None:
    device = os.makedev(0, 45)
    file = ["@@file", f"{device} 812", "@@holder", HOLDER, "@@locks"]
    held = parse.apply_lock([*file, "1: FLOCK  ADVISORY  WRITE 912 00:2d:812 0 EOF"])
    assert (held.held, held.holder) == (True, "ada on desk since 08:00")
    other = parse.apply_lock([*file, "1: FLOCK  ADVISORY  WRITE 912 00:2d:8122 0 EOF"])
    assert (other.held, other.holder) == (False, "")
    assert not parse.apply_lock(["@@file", "@@holder", "@@locks"]).held
    assert not parse.apply_lock(lab("apply_lock")).held


@pytest.mark.parametrize("fact", sorted(set(PARSERS) - {"power", "gpus", "releases"}))
def test_empty_output_is_never_an_answer(fact: str) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        PARSERS[fact]([])


def test_every_script_has_a_parser_and_ends_in_its_mark() -> None:
    assert set(SCRIPTS) == {*PARSERS, "clock"}
    assert all(script(fact).endswith(f"echo {END}\n") for fact in SCRIPTS)
