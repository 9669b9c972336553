"""One host: its disk, its identity, its boot and its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import disk, network, processes, supervise
from holdfast_installer.lab.layout import Lab, LabHost, directory, namespace
from holdfast_installer.lab.processes import run

BOOT_PATIENCE = 60.0
_CGROUPS = Path("/sys/fs/cgroup")
_SYSTEMD = Path("/run/systemd/system")

_NEEDED = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "sysctl": "procps",
    "nsenter": "util-linux",
    "mount": "mount",
    "ssh-keygen": "openssh-client",
}


def missing_packages() -> set[str]:
    """Return the Debian packages whose commands the lab needs and this machine lacks."""
    path = processes.search_path()
    return {package for tool, package in _NEEDED.items() if not shutil.which(tool, path=path)}


def missing_for_lab() -> list[str]:
    """Return what this machine lacks for a lab, in words; nothing where it can run one."""
    missing = [] if os.geteuid() == 0 else ["root, for namespaces and mounts"]
    missing += [f"the package {package}" for package in sorted(missing_packages())]
    if missing:
        return missing
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"namespaces, which this machine does not give ({done.stderr.strip()})"]
    return []


def machine_dir(lab: Lab, host: LabHost) -> Path:
    """Return the folder of a host's disk, console log and keys."""
    return lab.directory / "machines" / host.name


def prepare(lab: Lab, host: LabHost, rootfs: Path) -> None:
    """Mount the host's disk and write who it is; a host that was there keeps its disk."""
    folder = machine_dir(lab, host)
    folder.mkdir(parents=True, exist_ok=True)
    root = disk.mount_overlay(rootfs, folder)
    for name, mode in (("ssh_host_ed25519_key", 0o600), ("ssh_host_ed25519_key.pub", 0o644)):
        _write(root / "etc/ssh" / name, (folder / name).read_text(), mode)
    public = lab.ssh.private_key.with_suffix(".pub").read_text()
    _write(root / "root/.ssh/authorized_keys", public, 0o600)
    (root / "root/.ssh").chmod(0o700)
    if (root / "etc/hostname").exists():
        return  # booted before: what the operator changed since then stays
    _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    names = f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n"
    _write(root / "etc/hosts", f"{names}{host.address6} {host.name}\n")
    _write(root / "etc/hostname", f"{host.name}\n")  # last: the sign that all is written


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def make_key(path: Path, comment: str) -> None:
    """Make an SSH key pair where there is none."""
    if not path.with_suffix(".pub").exists():  # ssh-keygen writes this half last
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])


def make_keys(lab: Lab) -> None:
    """Make the operator's key and every host's key, and write known_hosts from them."""
    make_key(lab.ssh.private_key, f"holdfast lab {lab.name}")
    lines = []
    for host in lab.hosts:
        key = machine_dir(lab, host) / "ssh_host_ed25519_key"
        make_key(key, host.name)
        kind, public = key.with_suffix(".pub").read_text().split()[:2]
        lines.append(f"{host.name},{host.address},{host.address6} {kind} {public}\n")
    lab.ssh.known_hosts.write_text("".join(lines))


def nspawn_command(lab: Lab, host: LabHost) -> list[str]:
    """Return the command that boots the host."""
    return [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        f"--directory={machine_dir(lab, host) / 'root'}",
        f"--machine={host.namespace}",
        f"--hostname={host.name}",
        f"--network-namespace-path={processes.NETNS / host.namespace}",
        "--capability=CAP_NET_ADMIN",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
    ]


def start(lab: Lab, host: LabHost) -> None:
    """Plug the host in and boot it, in a process that outlives this one."""
    network.plug_host(lab, host)
    folder = machine_dir(lab, host)
    on_systemd = _SYSTEMD.is_dir()
    spec = {
        "command": nspawn_command(lab, host),
        "environment": {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",  # a host sets its own net.* sysctls
            "SYSTEMD_NSPAWN_TMPFS_TMP": "0",  # /tmp on disk, as on a plain Debian 12
        },
        "cgroups": [] if on_systemd else [str(path) for path in cgroups(lab.name, host.name)],
        "console": str(folder / "console.log"),
        "replug": network.host_commands(lab, host),
    }
    path = folder / "supervise.json"
    path.write_text(json.dumps(spec, indent=2))
    command = [sys.executable, "-I", supervise.__file__, str(path)]
    if on_systemd:
        # A unit of an earlier boot that is still ending would hold the name.
        run(["systemctl", "stop", f"{host.namespace}.service"], check=False)
        unit = ["systemd-run", "--quiet", "--collect", f"--unit={host.namespace}"]
        run([*unit, "--property=Delegate=yes", "--property=KillMode=mixed", *command])
        return
    processes.detach(command, folder / "supervise.log")


def wait_until_up(lab: Lab, host: LabHost) -> None:
    """Wait for the host's SSH daemon to greet the operator, and note its PID 1."""
    deadline = time.monotonic() + BOOT_PATIENCE
    operator = namespace(lab.name, "operator")
    while not network.inside(operator, lambda: greets(host.address)):
        if time.monotonic() > deadline or not supervisors(lab.name, host.name):
            console = machine_dir(lab, host) / "console.log"
            lines = console.read_text(errors="replace").strip().splitlines()
            raise HoldfastError(
                f"host {host.name} of lab {lab.name} does not come up",
                where=str(console),
                cause=" / ".join(lines[-3:]) or "its SSH daemon does not answer",
                next_command=f"holdfast lab up --name {lab.name}",
            )
        time.sleep(0.1)
    host.pid = leader(lab, host)


def greets(address: str) -> bool:
    """Tell whether an SSH daemon answers at the address, from the network one stands in."""
    with contextlib.suppress(OSError), socket.create_connection((address, 22), 1) as link:
        return link.recv(4) == b"SSH-"
    return False


def supervisors(lab: str, host: str | None = None) -> list[int]:
    """Return the supervising and nspawn processes of one host, or of all of a lab."""
    folder = f"{directory(lab)}/machines/"
    name = namespace(lab, host or "")
    found = []
    for process in processes.all_processes():
        for part in process.command:
            of_machine = part.removeprefix("--machine=") if "--machine=" in part else ""
            matches_machine = of_machine == name if host else of_machine.startswith(name)
            of_spec = part.startswith(folder) and part.endswith("/supervise.json")
            matches_spec = of_spec and (not host or Path(part).parent.name == host)
            if matches_machine or matches_spec:
                found.append(process.pid)
                break
    return found


def leader(lab: Lab, host: LabHost) -> int | None:
    """Return the host's PID 1 as this machine counts, or None while it is down."""
    for pid in supervisors(lab.name, host.name):
        if init := processes.init_of(pid):
            return init
    return None


def kill(lab: Lab, host: LabHost) -> None:
    """Pull the plug: no shutdown, the disk stays as it is."""
    pids = supervisors(lab.name, host.name)
    # The supervisor goes first, or it would take the end of nspawn for the host's own wish.
    processes.kill([*pids, *filter(None, [leader(lab, host)])])
    processes.kill(processes.of_namespaces(host.namespace))
    remove_cgroups(lab.name, host.name)


def cgroups(lab: str, host: str = "") -> list[Path]:
    """Return the cgroups of a host, or of a lab, in each hierarchy that systemd needs."""
    roots = [_CGROUPS / "systemd", _CGROUPS / "unified", _CGROUPS]
    has_processes = [root for root in roots if (root / "cgroup.procs").exists()]
    return [root / "holdfast-lab" / lab / host for root in has_processes]


def remove_cgroups(lab: str, host: str = "") -> None:
    """Remove the cgroups of a host, or of a lab; the kernel needs a moment to empty them."""
    for top in cgroups(lab, host):
        deadline = time.monotonic() + 5
        while top.exists():
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                break  # `leftovers` names it
            time.sleep(0.02)
        if not host:
            with contextlib.suppress(OSError):  # another lab is in it
                top.parent.rmdir()
