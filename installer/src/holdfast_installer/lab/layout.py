"""What a lab consists of: its names, its addresses, and where its files are."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from holdfast_installer.errors import EXIT_USAGE, HoldfastError
from holdfast_installer.paths import state_dir

DEFAULT_HOSTS = ("control-1", "serving-1", "serving-2")
CANARY_ADDRESSES = ("192.0.2.1", "198.51.100.1", "2001:db8::1")
CANARY_PORT = 7007
CONTROL_PORT = 7000
LAST_INDEX = 254

# No hyphen in a lab's name: `hf-<lab>-` must never be the beginning of another lab's names.
_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
_HOST_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RESERVED = ("net", "canary", "operator", "researcher")
_FIRST_OF_ROLE = {"control": (11, 9), "serving": (21, 80)}
_FIRST_OTHER = 101
_INTERFACE_NAME_LIMIT = 15


class LabHost(BaseModel):
    """One host; `pid` is its PID 1 as this machine counts, None while it is down."""

    model_config = ConfigDict(extra="forbid")

    name: str
    address: str
    address6: str
    namespace: str
    pid: int | None = None


class LabSsh(BaseModel):
    """How to log in to any host of the lab."""

    model_config = ConfigDict(extra="forbid")

    private_key: Path
    known_hosts: Path
    user: str = "root"


class LabCanary(BaseModel):
    """Where egress probes aim, and where the operator reads what arrived."""

    model_config = ConfigDict(extra="forbid")

    ipv4: str = CANARY_ADDRESSES[0]
    ipv6: str = CANARY_ADDRESSES[2]
    tcp_port: int = CANARY_PORT
    udp_port: int = CANARY_PORT
    addresses: list[str]
    control: str
    namespace: str


class Lab(BaseModel):
    """The content of lab.json, from which `holdfast init --lab` makes a site."""

    model_config = ConfigDict(extra="forbid")

    name: str
    index: int
    hosts: list[LabHost]
    ssh: LabSsh
    canary: LabCanary

    @property
    def network(self) -> str:
        """Return the IPv4 network of this lab."""
        return f"198.18.{self.index}.0/24"

    @property
    def network6(self) -> str:
        """Return the IPv6 network of this lab."""
        return f"fd98:12:{self.index}::/64"

    @property
    def directory(self) -> Path:
        """Return the folder that holds keys, disks and logs of this lab."""
        return directory(self.name)

    def address(self, last: int) -> tuple[str, str]:
        """Return the IPv4 and IPv6 address whose last group reads `last`."""
        return f"198.18.{self.index}.{last}", f"fd98:12:{self.index}::{last}"

    def host(self, name: str) -> LabHost:
        """Return the host called `name`."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise HoldfastError(
            f"lab {self.name} has no host {name}",
            cause=f"its hosts are {', '.join(host.name for host in self.hosts)}",
            next_command=f"holdfast lab status --name {self.name}",
            exit_code=EXIT_USAGE,
        )

    def add_host(self, name: str) -> LabHost:
        """Give `name` an address by the scheme (control .11…, serving .21…, others .101…)."""
        check_host_name(name)
        ipv4, ipv6 = self.address(self._last_group(name))
        host = LabHost(name=name, address=ipv4, address6=ipv6, namespace=namespace(self.name, name))
        self.hosts.append(host)
        return host

    def _last_group(self, name: str) -> int:
        role, _, number = name.rpartition("-")
        if role in _FIRST_OF_ROLE and number.isdecimal():
            first, amount = _FIRST_OF_ROLE[role]
            if 1 <= int(number) <= amount:
                return first + int(number) - 1
        taken = {int(host.address.rpartition(".")[2]) for host in self.hosts}
        return next(last for last in range(_FIRST_OTHER, 255) if last not in taken)

    def networks(self) -> list[str]:
        """Return every network that belongs to the lab, the canary's addresses included."""
        canary = [str(ipaddress.ip_network(address)) for address in CANARY_ADDRESSES]
        return [self.network, self.network6, *canary]

    def save(self) -> None:
        """Write lab.json so that a reader sees the old one or the new one, never half."""
        path = self.directory / "lab.json"
        fresh = path.with_suffix(".json.new")
        fresh.write_text(self.model_dump_json(indent=2) + "\n")
        fresh.replace(path)


def new(name: str, index: int) -> Lab:
    """Return a lab without hosts."""
    home = directory(name)
    return Lab(
        name=name,
        index=index,
        hosts=[],
        ssh=LabSsh(private_key=home / "ssh/id_ed25519", known_hosts=home / "ssh/known_hosts"),
        canary=LabCanary(
            addresses=list(CANARY_ADDRESSES),
            control=f"http://198.18.{index}.1:{CONTROL_PORT}",
            namespace=namespace(name, "canary"),
        ),
    )


def load(name: str) -> Lab | None:
    """Return the lab as written at the last `up`, or None where there is none."""
    path = directory(name) / "lab.json"
    try:
        return Lab.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise HoldfastError(
            "lab.json cannot be read",
            where=str(path),
            cause=str(error).splitlines()[0],
            next_command=f"holdfast lab down --name {name}",
        ) from error


def require(name: str) -> Lab:
    """Return the lab, or say how to get one."""
    lab = load(check_lab_name(name))
    if lab is None:
        raise HoldfastError(
            f"there is no lab {name}", next_command=f"holdfast lab up --name {name}"
        )
    return lab


def labs_dir() -> Path:
    """Return the folder of all labs."""
    return state_dir().absolute() / "lab"


def directory(name: str) -> Path:
    """Return the folder of one lab."""
    return labs_dir() / name


def namespace(lab: str, part: str) -> str:
    """Return the name of the network namespace of a host or another part of a lab."""
    return f"hf-{lab}-{part}"


def port(part: str) -> str:
    """Return the bridge port's name for `part`, within the kernel's 15 characters."""
    if len(part) <= _INTERFACE_NAME_LIMIT:
        return part
    digest = hashlib.sha256(part.encode()).hexdigest()[:5]
    return f"{part[: _INTERFACE_NAME_LIMIT - 6]}-{digest}"


def check_lab_name(name: str) -> str:
    """Return `name`, or say what a lab may be called."""
    if not _LAB_NAME.fullmatch(name):
        raise HoldfastError(
            f"{name!r} cannot name a lab",
            cause="a name is a lower-case letter, then up to 19 lower-case letters or digits",
            exit_code=EXIT_USAGE,
        )
    return name


def check_host_name(name: str) -> str:
    """Return `name`, or say what a lab's host may be called."""
    if not _HOST_NAME.fullmatch(name) or len(name) > 32 or name in _RESERVED:
        raise HoldfastError(
            f"{name!r} cannot name a host",
            cause="a name is at most 32 lower-case letters, digits and inner hyphens, "
            f"and none of {', '.join(_RESERVED)}",
            exit_code=EXIT_USAGE,
        )
    return name
