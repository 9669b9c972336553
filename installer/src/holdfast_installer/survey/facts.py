"""What a survey saw of one host; a fact that could not be read says `unread`, never nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Unread = Literal["unread"]
UNREAD: Unread = "unread"

Reach = Literal[
    "read",
    "unreachable",
    "wrong-host-key",
    "unknown-host-key",
    "authentication-failed",
    "error",
]
Vendor = Literal["nvidia", "amd", "intel"]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OperatingSystem(_Fact):
    """From /etc/os-release."""

    id: str
    version: str
    codename: str
    name: str


class Kernel(_Fact):
    """From uname, systemd-detect-virt and systemd's own marker of a container."""

    release: str
    architecture: str
    virtualisation: str
    container: bool


class Cpu(_Fact):
    """From /proc/cpuinfo: `threads` is what the kernel schedules on."""

    model: str
    vendor: str
    threads: int
    sockets: int
    flags: tuple[str, ...]


class NumaNode(_Fact):
    """One memory node: `cpus` as the kernel writes ranges, memory in bytes."""

    node: int
    cpus: str
    memory_bytes: int


class Memory(_Fact):
    """From /proc/meminfo, in bytes."""

    total_bytes: int
    available_bytes: int


class Mount(_Fact):
    """One mounted file system, sizes in bytes."""

    target: str
    source: str
    kind: str
    size_bytes: int
    free_bytes: int


class Interface(_Fact):
    """One network interface; addresses carry their prefix length."""

    name: str
    mac: str
    state: str
    addresses: tuple[str, ...]


class Gpu(_Fact):
    """One GPU; what only the vendor's tool knows is unread where that tool is not installed."""

    vendor: Vendor
    model: str
    memory_bytes: int | Unread
    driver: str
    identity: str


class Listener(_Fact):
    """One listening socket: who holds it, by process name and systemd unit ("" if nobody knows)."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    process: str
    unit: str


class Clock(_Fact):
    """The host's clock against the operator's: positive is ahead; half the round trip is doubt."""

    offset_seconds: float
    doubt_seconds: float


class Power(_Fact):
    """Whether the energy counters (RAPL) can be read, and their domains."""

    readable: bool
    domains: tuple[str, ...]


class Releases(_Fact):
    """Bundle digests (hex) unpacked in /opt/holdfast/releases and the one in use ("" if none)."""

    current: str
    installed: tuple[str, ...]


class ServedUnit(_Fact):
    """One vLLM unit that the host is set up for, running or not; `devices` are its GPUs."""

    unit: str
    model: str
    commit: str
    port: int
    devices: tuple[str, ...] = ()


class HostKey(_Fact):
    """The key the host showed, which is the known one, as ssh-keygen -l prints it."""

    kind: str
    fingerprint: str


class ApplyLock(_Fact):
    """Whether an apply is running on this site, and who said they started it."""

    held: bool
    holder: str


class HostFacts(_Fact):
    """Everything a survey asks of a host."""

    name: str
    address: str
    reach: Reach
    detail: str = ""
    os: OperatingSystem | Unread = UNREAD
    kernel: Kernel | Unread = UNREAD
    cpu: Cpu | Unread = UNREAD
    numa: tuple[NumaNode, ...] | Unread = UNREAD
    memory: Memory | Unread = UNREAD
    mounts: tuple[Mount, ...] | Unread = UNREAD
    interfaces: tuple[Interface, ...] | Unread = UNREAD
    gpus: tuple[Gpu, ...] | Unread = UNREAD
    listeners: tuple[Listener, ...] | Unread = UNREAD
    clock: Clock | Unread = UNREAD
    power: Power | Unread = UNREAD
    releases: Releases | Unread = UNREAD
    replicas: tuple[ServedUnit, ...] | Unread = UNREAD
    host_key: HostKey | Unread = UNREAD
    apply_lock: ApplyLock | Unread = UNREAD

    def unread(self) -> tuple[str, ...]:
        """Return the names of the facts that could not be read."""
        return tuple(name for name in FACTS if getattr(self, name) == UNREAD)


FACTS = tuple(
    name for name in HostFacts.model_fields if name not in {"name", "address", "reach", "detail"}
)


class Survey(_Fact):
    """What was seen of every host of a site, and from when."""

    site: str
    taken_at: str
    hosts: tuple[HostFacts, ...]

    def host(self, name: str) -> HostFacts:
        """Return the facts of that host; `KeyError` where it was not surveyed."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)
