"""Namespaces, the bridge and its ports: a network whose every end is inside the lab.

The bridge has a namespace of its own, and each cable is created with both ends already in
their namespaces, so this machine's own network never has an interface of the lab.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab.layout import CANARY_ADDRESSES, Lab, LabHost, namespace, port
from holdfast_installer.lab.processes import NETNS, run

if TYPE_CHECKING:
    from collections.abc import Callable

BRIDGE = "bridge"
RESOLVERS = Path("/etc/netns")
OPERATOR = 2
RESEARCHER = 3
_CLONE_NEWNET = 0x40000000

Answer = TypeVar("Answer")


def exists(name: str) -> bool:
    """Tell whether a named network namespace is there."""
    return (NETNS / name).exists()


def build(lab: Lab) -> None:
    """Make the bridge and the ends that are not hosts, where they are missing."""
    bridge = namespace(lab.name, "net")
    if not exists(bridge):
        run(["ip", "netns", "add", bridge])
    if not _has_interface(bridge, BRIDGE):
        # No snooping and no spanning tree: a port forwards from its first frame on.
        kind = ["type", "bridge", "stp_state", "0", "mcast_snooping", "0"]
        run(["ip", "-n", bridge, "link", "add", BRIDGE, *kind])
    run(["ip", "-n", bridge, "link", "set", BRIDGE, "addrgenmode", "none", "up"])
    for part, last in (("canary", 1), ("operator", OPERATOR), ("researcher", RESEARCHER)):
        if not _is_plugged(lab, part):
            _execute(plug_commands(lab, part, *lab.address(last), gateway=part != "canary"))
    for address in CANARY_ADDRESSES:
        name = namespace(lab.name, "canary")
        run(["ip", "-n", name, "address", "replace", address, "dev", "lo"])
    _write_resolvers(lab)


def plug_host(lab: Lab, host: LabHost) -> None:
    """Give the host a fresh namespace, without the packet filter of an earlier boot."""
    _execute(host_commands(lab, host))


def host_commands(lab: Lab, host: LabHost) -> list[list[str]]:
    """Return the commands that give a host a fresh namespace with its cable plugged in."""
    return plug_commands(lab, host.name, host.address, host.address6, gateway=True)


def plug_commands(lab: Lab, part: str, ipv4: str, ipv6: str, *, gateway: bool) -> list[list[str]]:
    """Return commands for `part`; those that begin with `-` may fail (nothing to remove)."""
    inside, bridge = namespace(lab.name, part), namespace(lab.name, "net")
    commands = [
        ["-", "ip", "-n", bridge, "link", "delete", port(part)],
        ["-", "ip", "netns", "delete", inside],
        ["ip", "netns", "add", inside],
    ]
    quiet = "net.ipv6.conf.{}.accept_dad=0", "net.ipv6.conf.{}.accept_ra=0"
    commands.append(
        ["ip", "netns", "exec", inside, "sysctl", "-q", "-w"]
        + [setting.format("default") for setting in quiet]
        + ["net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"]
    )
    cable = ["link", "add", port(part), "type", "veth", "peer", "name", "eth0"]
    cable += ["address", _mac(lab.name, part), "netns", inside]
    commands.append(["ip", "-n", bridge, *cable])
    outside = ["ip", "-n", bridge, "link", "set", port(part)]
    commands.append([*outside, "addrgenmode", "none", "up"])
    ip = ["ip", "-n", inside]
    commands += [
        [*ip, "link", "set", "lo", "up"],
        [*ip, "link", "set", "eth0", "up"],
        [*ip, "address", "add", f"{ipv4}/24", "dev", "eth0"],
        [*ip, "address", "add", f"{ipv6}/64", "dev", "eth0", "nodad"],
    ]
    if gateway:
        commands += [[*ip, "route", "add", "default", "via", one] for one in lab.address(1)]
    # The last step, and so the sign that none of the others is missing after a kill.
    commands.append([*outside, "master", BRIDGE])
    return commands


def _execute(commands: list[list[str]]) -> None:
    for command in commands:
        if command[0] == "-":
            run(command[1:], check=False)
        else:
            run(command)


def _is_plugged(lab: Lab, part: str) -> bool:
    bridge = namespace(lab.name, "net")
    shown = run(["ip", "-n", bridge, "-o", "link", "show", "dev", port(part)], check=False)
    return exists(namespace(lab.name, part)) and f"master {BRIDGE} " in shown


def _has_interface(name: str, interface: str) -> bool:
    return bool(run(["ip", "-n", name, "-o", "link", "show", "dev", interface], check=False))


def _mac(lab: str, part: str) -> str:
    """Return a locally administered address that is the same after a reboot."""
    digest = hashlib.sha256(f"{lab}/{part}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (2, *digest[:5]))


def _write_resolvers(lab: Lab) -> None:
    """Give operator and researcher their own resolver and host names, not this machine's."""
    control = next((host for host in lab.hosts if host.name.startswith("control-")), None)
    names = "".join(f"{host.address} {host.name}\n" for host in lab.hosts)
    own = "127.0.0.1 localhost\n::1 localhost\n"
    for part, resolver, hosts in (
        ("operator", "", own + names),
        ("researcher", f"nameserver {control.address}\n" if control else "", own),
    ):
        folder = RESOLVERS / namespace(lab.name, part)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "resolv.conf").write_text(resolver)
        (folder / "hosts").write_text(hosts)


def remove(prefix: str) -> None:
    """Delete the namespaces that begin with `prefix`, and what /etc/netns has for them."""
    for path in NETNS.glob(f"{prefix}*"):
        run(["ip", "netns", "delete", path.name])
    for folder in RESOLVERS.glob(f"{prefix}*"):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    if RESOLVERS.is_dir() and not any(RESOLVERS.iterdir()):
        RESOLVERS.rmdir()


def inside(name: str, work: Callable[[], Answer]) -> Answer:
    """Call `work` in a network namespace, in a thread of its own: no other thread moves."""
    answers: list[Answer] = []
    problems: list[BaseException] = []

    def enter() -> None:
        try:
            descriptor = os.open(NETNS / name, os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), name)
            finally:
                os.close(descriptor)
            answers.append(work())
        except Exception as error:  # noqa: BLE001 - handed to the caller's thread below
            problems.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return answers[0]


def refuse_from_inside(prefix: str) -> None:
    """Refuse to take away the network that this very process stands in."""
    own = Path("/proc/self/ns/net").stat()
    for path in NETNS.glob(f"{prefix}*"):
        there = path.stat()
        if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino):
            raise HoldfastError(
                "a lab cannot be changed from inside itself",
                where=path.name,
                next_command="leave `holdfast lab exec`, then run this again",
            )
