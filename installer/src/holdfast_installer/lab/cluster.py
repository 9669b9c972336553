"""The lab as a whole: up, status, down, and the check that nothing of it is left."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import (
    canary,
    capture,
    disk,
    layout,
    machine,
    network,
    processes,
    registration,
    rootfs,
)
from holdfast_installer.lab.layout import Lab, LabHost, namespace

Say = Callable[[str], None]

_PROPAGATE = Path("/run/systemd/nspawn/propagate")
_CANARY_PATIENCE = 10.0


class HostStatus(BaseModel):
    """What is seen of one host now."""

    name: str
    address: str
    address6: str
    state: Literal["up", "booting", "down"]
    pid: int | None


class LabStatus(BaseModel):
    """What is seen of one lab now."""

    name: str
    network: str
    network6: str
    canary: Literal["up", "down"]
    hosts: list[HostStatus]
    directory: Path


def refuse_without_means() -> None:
    """Say in one line what this machine lacks for a lab, and the command that brings it."""
    missing = machine.missing_for_lab()
    if not missing:
        return
    packages = " ".join(sorted(machine.missing_packages()))
    next_command = "holdfast up --local"
    if os.geteuid() != 0:
        next_command = f"sudo holdfast {' '.join(sys.argv[1:])}"
    elif packages:
        next_command = f"apt-get install {packages}"
    raise HoldfastError(f"the lab needs {', '.join(missing)}", next_command=next_command)


def up(name: str, hosts: Iterable[str] = (), *, say: Say) -> Lab:
    """Boot what is not up yet of the lab and return it once every host answers over SSH.

    Without `hosts`, an existing lab keeps those it has and a new one gets the default three;
    hosts named in addition are added. A host that was up before keeps its disk.
    """
    layout.check_lab_name(name)
    refuse_without_means()
    with registration.alone(name, say):
        network.refuse_from_inside(f"hf-{name}-")
        lab = _planned(name, list(hosts))
        down = [host for host in lab.hosts if not is_up(lab, host)]
        if not down and _canary_answers(lab):
            return lab
        base = rootfs.ensure(say)
        network.build(lab)
        _start_canary(lab)
        machine.make_keys(lab)
        if down:
            say(f"booting {', '.join(host.name for host in down)}")
        with ThreadPoolExecutor(max_workers=8) as pool:
            boots = [pool.submit(_boot, lab, host, base) for host in down]
        lab.save()
        for boot in boots:
            boot.result()
    return lab


def _planned(name: str, hosts: list[str]) -> Lab:
    """Return the lab with every wanted host in it, written down before anything is made."""
    index = registration.claim(name)
    lab = layout.load(name) or layout.new(name, index)
    wanted = hosts or ([] if lab.hosts else list(layout.DEFAULT_HOSTS))
    known = {host.name for host in lab.hosts}
    for host in dict.fromkeys(wanted):
        if host not in known:
            lab.add_host(host)
    (lab.directory / "ssh").mkdir(parents=True, exist_ok=True, mode=0o700)
    lab.save()
    return lab


def _boot(lab: Lab, host: LabHost, base: Path) -> None:
    machine.kill(lab, host)
    machine.prepare(lab, host, base)
    machine.start(lab, host)
    machine.wait_until_up(lab, host)


def is_up(lab: Lab, host: LabHost) -> bool:
    """Tell whether the host runs and its SSH daemon answers; note its PID 1."""
    host.pid = machine.leader(lab, host)
    operator = namespace(lab.name, "operator")
    if host.pid is None or not network.exists(operator) or not network.exists(host.namespace):
        return False
    return network.inside(operator, lambda: machine.greets(host.address))


def _canary_answers(lab: Lab) -> bool:
    operator = namespace(lab.name, "operator")
    if not network.exists(operator):
        return False

    def ask() -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(f"{lab.canary.control}/healthz", timeout=2):
            return True
        return False

    return network.inside(operator, ask)


def _start_canary(lab: Lab) -> None:
    if _canary_answers(lab):
        return
    processes.kill(processes.of_namespaces(lab.canary.namespace))
    own = lab.address(1)
    setup = {
        "addresses": [*own, *layout.CANARY_ADDRESSES],
        "control": own[0],
        "operator": lab.address(network.OPERATOR)[0],
    }
    # nsenter, not `ip netns exec`: that one would hold every mount of now for ever.
    enter = ["nsenter", f"--net={processes.NETNS / lab.canary.namespace}"]
    run = [sys.executable, "-I", canary.__file__, json.dumps(setup)]
    processes.detach([*enter, *run], lab.directory / "canary.log")
    deadline = time.monotonic() + _CANARY_PATIENCE
    while not _canary_answers(lab):
        if time.monotonic() > deadline:
            raise HoldfastError(
                f"the canary of lab {lab.name} does not answer",
                where=str(lab.directory / "canary.log"),
                next_command=f"holdfast lab up --name {lab.name}",
            )
        time.sleep(0.1)


def status(name: str) -> LabStatus:
    """Return what is seen of a lab now."""
    lab = layout.require(name)
    hosts = []
    for host in lab.hosts:
        answers = is_up(lab, host)
        state: Literal["up", "booting", "down"] = "up" if answers else "down"
        if not answers and host.pid is not None:
            state = "booting"
        seen = host.model_dump(include={"name", "address", "address6", "pid"})
        hosts.append(HostStatus(state=state, **seen))
    return LabStatus(
        name=name,
        network=lab.network,
        network6=lab.network6,
        canary="up" if _canary_answers(lab) else "down",
        hosts=hosts,
        directory=lab.directory,
    )


def names() -> list[str]:
    """Return the names of this operator's labs."""
    return sorted(path.parent.name for path in layout.labs_dir().glob("*/lab.json"))


def down(name: str, *, say: Say) -> None:
    """Take away everything of a lab, disks and keys included; where there is none, do nothing."""
    layout.check_lab_name(name)
    if os.geteuid() != 0:
        if name not in registration.registered() and not layout.directory(name).exists():
            return
        raise HoldfastError(
            "a lab is taken down by root", next_command=f"sudo holdfast lab down --name {name}"
        )
    with registration.alone(name, say):
        network.refuse_from_inside(f"hf-{name}-")
        owner = registration.registered().get(name)
        if owner and owner[0] != str(layout.labs_dir()):
            raise HoldfastError(f"lab {name} belongs to another operator", where=owner[0])
        prefix = f"hf-{name}-"
        # Again until none is left: a supervisor may have started one in between.
        while pids := {*machine.supervisors(name), *processes.of_namespaces(prefix)}:
            processes.kill(sorted(pids))
        disk.unmount_below(layout.directory(name))
        network.remove(prefix)
        machine.remove_cgroups(name)
        for folder in _PROPAGATE.glob(f"{prefix}*"):
            disk.remove_tree(folder)
        disk.remove_tree(layout.directory(name))
        if left := leftovers(name):
            raise HoldfastError(
                f"lab {name} is not all gone",
                cause="; ".join(left),
                next_command=f"holdfast lab down --name {name}",
            )
        registration.forget(name)


def stop_host(name: str, host: str) -> None:
    """Pull the plug of one host; `up` boots it again with the disk it had."""
    lab = layout.require(name)
    machine.kill(lab, lab.host(host))


def leftovers(name: str) -> list[str]:
    """Return what is still there of a lab: processes, mounts, namespaces, links, folders."""
    prefix = f"hf-{name}-"
    pids = {*machine.supervisors(name), *processes.of_namespaces(prefix)}
    found = [f"process {pid}" for pid in sorted(pids)]
    found += [f"mount {path}" for path in disk.mounts_below(layout.directory(name))]
    found += [f"namespace {path.name}" for path in processes.NETNS.glob(f"{prefix}*")]
    found += [f"folder {path}" for path in network.RESOLVERS.glob(f"{prefix}*")]
    found += [f"folder {path}" for path in _PROPAGATE.glob(f"{prefix}*")]
    found += [f"cgroup {path}" for path in machine.cgroups(name) if path.exists()]
    links = processes.run(["ip", "-brief", "link", "show"]).splitlines()
    found += [f"interface {line.split()[0]}" for line in links if line.startswith(prefix)]
    if layout.directory(name).exists():
        found.append(f"folder {layout.directory(name)}")
    return found


def command_in(lab: Lab, where: str, command: list[str]) -> list[str]:
    """Return the command that runs `command` as operator, as researcher, or on a host."""
    if where in {"operator", "researcher", "canary"}:
        return ["ip", "netns", "exec", namespace(lab.name, where), *command]
    host = lab.host(where)
    pid = machine.leader(lab, host)
    if pid is None:
        raise HoldfastError(
            f"host {where} of lab {lab.name} is down",
            next_command=f"holdfast lab up --name {lab.name}",
        )
    clean = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", f"TERM={os.environ.get('TERM', 'dumb')}"]
    clean += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
    return [*enter, "--wd=/", *clean, *command]


@contextlib.contextmanager
def recording(lab: Lab, path: Path) -> Iterator[None]:
    """Record the frames on the lab's bridge while the block runs; frames lost are an error."""
    command = ["nsenter", f"--net={processes.NETNS / namespace(lab.name, 'net')}"]
    command += [sys.executable, "-I", capture.__file__, str(path.absolute())]
    path.unlink(missing_ok=True)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while not (path.exists() and path.stat().st_size):
            if child.poll() is not None:
                said = child.stderr.read().strip() if child.stderr else ""
                raise HoldfastError("the bridge cannot be recorded", cause=said)
            time.sleep(0.02)
        try:
            yield
        finally:
            child.terminate()
            child.wait()
    if lost := capture.statistics(path)["lost"]:
        raise HoldfastError(
            f"the recording lacks {lost} frames", where=str(path), cause="the machine was too busy"
        )


def outside(lab: Lab, path: Path, *, own_only: bool = False) -> list[capture.Packet]:
    """Return the recorded packets from or to addresses that are not the lab's.

    With `own_only` the canary's addresses count as outside too: nothing may even try.
    """
    allowed = [lab.network, lab.network6] if own_only else lab.networks()
    return capture.foreign_packets(path, [str(ipaddress.ip_network(one)) for one in allowed])
