"""Everything that bars an apply, found at once, from what the survey saw."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import yaml

import holdfast_profiles
from holdfast_installer.errors import Finding
from holdfast_installer.plan.ports import wanted
from holdfast_installer.profiles import hardware_profile
from holdfast_installer.survey.facts import UNREAD, HostFacts, Listener, Memory, Mount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_installer.bundle.manifest import Manifest
    from holdfast_installer.plan.model import Gateway, HostPlan, Pool
    from holdfast_installer.plan.ports import Want
    from holdfast_installer.plan.sizes import Need
    from holdfast_installer.site import Site
    from holdfast_installer.survey.facts import Survey

GIB = 1024**3
CLOCK_LIMIT_SECONDS = 60.0
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
RELEASE_PYTHON = {"bookworm": "3.11"}
# Facts an apply cannot go without; the others inform.
NEEDED = (
    "os", "kernel", "cpu", "memory", "mounts", "interfaces",
    "gpus", "listeners", "clock", "releases", "replicas", "apply_lock",
)  # fmt: skip
UNREACHED = {
    "unreachable": "check that it is on, and that its address and port in site.yml are right",
    "wrong-host-key": "find out why the key changed; only then replace it in the known_hosts file",
    "unknown-host-key": "add its host key, read from its console, to the known_hosts file",
    "authentication-failed": "put the public half of ssh.private_key in the user's authorized_keys",
    "error": "run holdfast survey --site site.yml again and read the detail",
}
ANY = frozenset({"0.0.0.0", "::", "*"})  # noqa: S104 - names of the wildcard, nothing binds here


def _fail(name: str, host: str, detail: str, fix: str) -> Finding:
    return Finding(name=name, verdict="fail", host=host, detail=detail, fix=fix)


@dataclass(frozen=True)
class Target:
    """What every host is measured against."""

    site: Site
    manifest: Manifest
    bundle_digest: str
    pools: tuple[Pool, ...]
    gateways: tuple[Gateway, ...]


def host_blockers(
    target: Target, facts: HostFacts, host: HostPlan, need: Need
) -> Iterator[Finding]:
    """Yield every reason why this host cannot become what the plan wants of it."""
    if facts.reach != "read":
        yield _fail(facts.reach, host.name, facts.detail or facts.reach, UNREACHED[facts.reach])
        return
    for name in NEEDED:
        if getattr(facts, name) == UNREAD:
            yield _fail(
                "unread", host.name, f"the fact {name} could not be read",
                "holdfast survey --site site.yml --json shows what was; nothing is assumed",
            )  # fmt: skip
    yield from _system(facts, host, target.manifest)
    yield from _processor(facts, host)
    yield from _room(facts, host, need, target.bundle_digest)
    yield from _ports(facts, host, target)
    yield from _address(target.site, facts, host)
    yield from _clock_and_lock(facts, host)


def _system(facts: HostFacts, host: HostPlan, manifest: Manifest) -> Iterator[Finding]:
    if facts.os != UNREAD and (facts.os.id, facts.os.codename) != ("debian", manifest.release):
        yield _fail(
            "unsupported-os", host.name,
            f"runs {facts.os.name}; the bundle is for Debian {manifest.release}",
            f"install Debian {manifest.release} on it, or build a bundle for its release",
        )  # fmt: skip
    expected = MACHINES.get(manifest.architecture, manifest.architecture)
    if facts.kernel != UNREAD and facts.kernel.architecture != expected:
        yield _fail(
            "architecture", host.name,
            f"is {facts.kernel.architecture}; the bundle is for {manifest.architecture}",
            "build a bundle for its architecture",
        )  # fmt: skip


def _processor(facts: HostFacts, host: HostPlan) -> Iterator[Finding]:
    if not host.hardware:
        return
    profile = hardware_profile(host.hardware)
    wanted_flags = profile.cpu_flags_any
    if wanted_flags and facts.cpu != UNREAD and not set(wanted_flags) & set(facts.cpu.flags):
        yield _fail(
            "cpu-isa", host.name,
            f"{facts.cpu.model} has none of {', '.join(wanted_flags)}; "
            f"the wheels of {host.hardware} would end with SIGILL",
            "serve from another host, or choose another hardware profile",
        )  # fmt: skip
    vendor = host.hardware.removeprefix("gpu-")
    if vendor == host.hardware or facts.gpus == UNREAD:
        return
    mine = [gpu for gpu in facts.gpus if gpu.vendor == vendor]
    if not [gpu for gpu in mine if gpu.memory_bytes != UNREAD]:
        seen = f"{mine[0].model} is there, but its driver does not answer" if mine else "none found"
        yield _fail(
            "gpu", host.name, f"{host.hardware} needs a working {vendor} GPU: {seen}",
            "install the GPU's driver, or choose another hardware profile",
        )  # fmt: skip


def _room(facts: HostFacts, host: HostPlan, need: Need, bundle_digest: str) -> Iterator[Finding]:
    first = facts.releases == UNREAD or not facts.releases.current
    if facts.memory != UNREAD:
        yield from _memory(facts.memory, host, first=first)
    installed = facts.releases != UNREAD and (
        bundle_digest.removeprefix("sha256:") in facts.releases.installed
    )
    if facts.mounts == UNREAD or installed:
        return
    wants: dict[str, tuple[Mount, int]] = {}
    for folder, size in need.disk.items():
        mount = mount_of(facts.mounts, folder)
        if mount is None:
            yield _fail("disk", host.name, f"no file system found for {folder}", "mount one")
            continue
        wants[mount.target] = (mount, wants.get(mount.target, (mount, 0))[1] + size)
    if host.hardware and first and wants:
        least = hardware_profile(host.hardware).min_disk_gib * GIB
        mount = mount_of(facts.mounts, "/opt/holdfast")
        if mount is not None:
            wants[mount.target] = (mount, max(wants[mount.target][1], least))
    for mount, size in wants.values():
        if size > mount.free_bytes:
            yield _fail(
                "disk", host.name,
                f"{_gib(size)} needed on {mount.target}, {_gib(mount.free_bytes)} free",
                f"free {_gib(size - mount.free_bytes)} on {mount.target}, or mount more there",
            )  # fmt: skip


def _memory(memory: Memory, host: HostPlan, *, first: bool) -> Iterator[Finding]:
    # Where a release runs already, what it holds is what we would free: count all of it.
    total = memory.total_bytes
    there = memory.available_bytes if first else total
    if host.memory_bytes > there:
        count = len(host.replicas)
        yield _fail(
            "memory", host.name,
            f"{_gib(host.memory_bytes)} needed ({count} replica{'s' * (count != 1)}), "
            f"{_gib(there)} {'available' if first else 'installed'}",
            "fewer replicas, another host in the pool, or more memory",
        )  # fmt: skip
    if host.hardware:
        least = hardware_profile(host.hardware).min_memory_gib * GIB
        if total < least:
            yield _fail(
                "memory", host.name,
                f"{host.hardware} asks for {_gib(least)}; the host has {_gib(total)}",
                "use a host with more memory",
            )  # fmt: skip


def mount_of(mounts: tuple[Mount, ...], folder: str) -> Mount | None:
    """Return the file system that a folder is, or will be, on."""
    here = folder
    targets = {mount.target: mount for mount in mounts}
    while here not in targets:
        above = posixpath.dirname(here)
        if above == here:
            return None
        here = above
    return targets[here]


def _ports(facts: HostFacts, host: HostPlan, target: Target) -> Iterator[Finding]:
    if facts.listeners == UNREAD:
        return
    for want in wanted(host, target.pools, target.gateways):
        strangers = {
            listener.unit or listener.process or "a process nobody knows"
            for listener in facts.listeners
            if _in_the_way(want, listener)
        }
        for stranger in sorted(strangers):
            yield _fail(
                "port", host.name,
                f"{want.protocol} port {want.port} is taken by {stranger}",
                f"stop {stranger} on {host.name}, or move it to another port",
            )  # fmt: skip


def _in_the_way(want: Want, listener: Listener) -> bool:
    same = (want.protocol, want.port) == (listener.protocol, listener.port)
    overlaps = listener.address in ANY or ip_address(listener.address) == ip_address(want.address)
    return same and overlaps and not listener.unit.startswith(want.units)


def _address(site: Site, facts: HostFacts, host: HostPlan) -> Iterator[Finding]:
    if facts.interfaces == UNREAD:
        return
    present = {
        str(ip_address(address.split("/")[0]))
        for interface in facts.interfaces
        for address in interface.addresses
    }
    for address in site.host(host.name).addresses():
        if str(address) not in present:
            yield _fail(
                "address", host.name, f"{address} is on none of its interfaces",
                "write in site.yml the address by which the other hosts reach it",
            )  # fmt: skip


def _clock_and_lock(facts: HostFacts, host: HostPlan) -> Iterator[Finding]:
    if facts.clock != UNREAD:
        offset, doubt = facts.clock.offset_seconds, facts.clock.doubt_seconds
        if abs(offset) - doubt > CLOCK_LIMIT_SECONDS:
            way = "ahead of" if offset > 0 else "behind"
            yield _fail(
                "clock", host.name, f"its clock is {abs(offset):.0f} s {way} the operator's",
                "set the clock: certificates made now would not be valid on it",
            )  # fmt: skip
    if facts.apply_lock != UNREAD and facts.apply_lock.held:
        yield _fail(
            "apply-lock", host.name,
            f"another apply is running: {facts.apply_lock.holder or 'holder unknown'}",
            "wait until it ends, or end it where it runs",
        )  # fmt: skip


def bundle_blockers(manifest: Manifest, hosts: list[HostPlan]) -> Iterator[Finding]:
    """Yield what the bundle lacks for this plan."""
    fix = "holdfast bundle lock --site site.yml, then holdfast bundle build, with this site file"
    packages = {artifact.name for artifact in manifest.of_kind("deb")}
    said: set[str] = set()
    for package in software_packages():
        if package not in packages:
            said.add(package)
            yield _fail("bundle-deb", "", f"the bundle has no Debian package {package}", fix)
    for host in hosts:
        for environment in host.environments:
            if not environment.requirements_digest and environment.name not in said:
                said.add(environment.name)
                yield _fail(
                    "bundle-environment", "",
                    f"the bundle has no environment {environment.name}, "
                    f"which {host.name} needs", fix,
                )  # fmt: skip
        for package in host.debian:
            if package not in packages and package not in said:
                said.add(package)
                yield _fail("bundle-deb", "", f"the bundle has no Debian package {package}", fix)
        yield from _python(manifest, host, said)


def software_packages() -> tuple[str, ...]:
    """Return the Debian packages that every site needs, whatever its hardware."""
    software = yaml.safe_load(holdfast_profiles.read("software", "platform"))
    names = (name for listed in software["debian"].values() for name in listed)
    return tuple(dict.fromkeys(names))


def _python(manifest: Manifest, host: HostPlan, said: set[str]) -> Iterator[Finding]:
    if not host.hardware or host.hardware in said:
        return
    python = hardware_profile(host.hardware).python
    there = RELEASE_PYTHON.get(manifest.release, "")
    if python != there:
        said.add(host.hardware)
        yield _fail(
            "python", "",
            f"the wheels of {host.hardware} are for Python {python}; "
            f"Debian {manifest.release} has {there or 'an unknown one'}",
            "choose a hardware profile whose wheels fit the release",
        )  # fmt: skip


def site_blockers(
    site: Site, survey: Survey, *, upstreams_allowed: bool, permitted: tuple[str, ...] | None
) -> Iterator[Finding]:
    """Yield what in the site's own wishes cannot be met.

    `permitted` are the jurisdictions in which the profiles let hosts stand; None leaves it open.
    """
    control = site.with_role("control")
    for host in control:
        label = site.host_jurisdiction(host)
        if permitted is not None and label not in permitted:
            # It keeps every model and every ledger: more than any serving host does.
            yield _fail(
                "jurisdiction", host.name,
                f"the control host stands in {label}; the profiles permit {', '.join(permitted)}",
                "give the role control to a host that stands where the profiles permit",
            )  # fmt: skip
    if len(control) > 1:
        yield _fail(
            "control-hosts", "",
            f"{len(control)} hosts carry the role control ({', '.join(h.name for h in control)}); "
            "this release installs one",
            "leave the role control on one host",
        )  # fmt: skip
    if not upstreams_allowed and (site.dns.upstreams or site.time.servers):
        yield _fail(
            "upstreams", "",
            f"the profiles allow no upstream (level {site.profiles.level}), "
            "and the site names some under dns or time",
            "remove dns.upstreams and time.servers, or choose another level",
        )  # fmt: skip
    keys: dict[str, str] = {}
    for facts in survey.hosts:
        if facts.host_key == UNREAD:
            continue
        other = keys.setdefault(facts.host_key.fingerprint, facts.name)
        if other != facts.name:
            yield _fail(
                "host-key-shared", facts.name,
                f"shows the same host key as {other}: one machine under two names, or a clone",
                "give each machine its own host keys (ssh-keygen -A) and correct known_hosts",
            )  # fmt: skip


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
