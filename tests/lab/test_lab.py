"""The lab itself, with real hosts: what is sealed, what comes back, what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import capture, cluster, layout, machine, processes, rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_installer.lab.layout import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]


def on(lab: Lab, where: str, script: str, *, check: bool = True) -> str:
    command = cluster.command_in(lab, where, ["sh", "-c", script])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def ssh(lab: Lab, target: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ["-i", str(lab.ssh.private_key), "-o", f"UserKnownHostsFile={lab.ssh.known_hosts}"]
    options += ["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-F", "none"]
    line = cluster.command_in(lab, "operator", ["ssh", *options, f"root@{target}", command])
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


SEND = """
import socket, sys
kind, address, port, text = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
link = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
link.settimeout(3)
link.connect((address, int(port)))
link.send(text.encode())
print(link.recv(1000).decode())
"""


def send(lab: Lab, where: str, kind: str, to: tuple[str, int], text: str) -> str:
    words = ["python3", "-c", SEND, kind, to[0], str(to[1]), text]
    line = cluster.command_in(lab, where, words)
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def seen(lab: Lab, path: str) -> list[dict[str, str]]:
    body = on(lab, "operator", f"curl -fsS --noproxy '*' {lab.canary.control}{path}")
    return next(iter(json.loads(body).values()))


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab("control-1", "serving-1")


def test_operator_reaches_each_host_by_name_and_address_with_a_known_key(lab: Lab) -> None:
    for host in lab.hosts:
        for target in (host.name, host.address, host.address6):
            done = ssh(lab, target, "hostname")
            assert (done.returncode, done.stdout) == (0, f"{host.name}\n"), done.stderr


def test_a_host_with_another_key_is_refused(lab: Lab) -> None:
    right, other = lab.hosts[0].address, lab.hosts[1].address
    text = lab.ssh.known_hosts.read_text()
    lab.ssh.known_hosts.write_text(text.replace(right, "x").replace(other, right))
    try:
        assert ssh(lab, right, "true").returncode == 255
    finally:
        lab.ssh.known_hosts.write_text(text)


def test_a_host_begins_bare(lab: Lab) -> None:
    root = Path(f"/proc/{lab.hosts[0].pid}/root")
    assert (root / "etc/apt/sources.list").read_text() == ""
    assert list((root / "etc/apt/sources.list.d").iterdir()) == []
    assert (root / "etc/resolv.conf").read_text() == ""
    configured = "".join(
        path.read_text() for path in (root / "etc/apt/apt.conf.d").iterdir() if path.is_file()
    )
    assert "Acquire" not in configured
    assert not list((root / "usr/local/share/ca-certificates").glob("**/*.crt"))
    identities = {on(lab, host.name, "cat /etc/machine-id") for host in lab.hosts}
    assert len(identities) == len(lab.hosts)


def test_a_host_is_a_running_system_without_failed_units(lab: Lab) -> None:
    for host in lab.hosts:
        assert on(lab, host.name, "systemctl is-system-running --wait") == "running"


@pytest.mark.parametrize("port", [7007, 80, 443, 853])
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", layout.CANARY_ADDRESSES)
def test_what_leaves_a_host_arrives_at_the_canary(
    lab: Lab, kind: str, address: str, port: int
) -> None:
    nonce = f"nonce-{kind}-{address}-{port}"
    assert send(lab, "serving-1", kind, (address, port), nonce) == nonce
    (entry,) = seen(lab, f"/seen/{nonce}")
    assert entry["source"] in {lab.host("serving-1").address, lab.host("serving-1").address6}
    assert (entry["protocol"], entry["destination"], entry["port"]) == (kind, address, port)


def test_the_canary_answers_and_notes_dns_questions(lab: Lab) -> None:
    script = """
import socket
open("/etc/resolv.conf", "w").write("nameserver 192.0.2.1\\n")
found = {entry[4][0] for entry in socket.getaddrinfo("Telemetry.example.org", 443)}
print(*sorted(found))
open("/etc/resolv.conf", "w").write("options use-vc\\nnameserver 192.0.2.1\\n")
print(socket.gethostbyname("overtcp.example.org"))
open("/etc/resolv.conf", "w").write("")
"""
    command = cluster.command_in(lab, "serving-1", ["python3", "-c", script])
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.split() == ["192.0.2.1", "2001:db8::1", "192.0.2.1"]
    names = {(entry["name"], entry["protocol"]) for entry in seen(lab, "/names")}
    assert {("Telemetry.example.org", "udp"), ("overtcp.example.org", "tcp")} <= names
    assert len(seen(lab, "/seen/telemetry.example")) == 2


def test_only_the_operator_reads_what_the_canary_saw(lab: Lab) -> None:
    for where in ("researcher", "serving-1"):
        address, port = lab.canary.control.removeprefix("http://").split(":")
        reply = send(lab, where, "tcp", (address, int(port)), "GET /seen HTTP/1.0\r\n\r\n")
        assert reply.startswith("HTTP/1.1 403")


def test_nothing_of_the_lab_is_in_the_network_of_this_machine(lab: Lab) -> None:
    links = processes.run(["ip", "-o", "link", "show"])
    assert "hf-" not in links
    for part in ("canary", "net"):
        name = layout.namespace(lab.name, part)
        command = cluster.command_in(lab, "canary", ["sysctl", "-n", "net.ipv4.ip_forward"])
        assert processes.run([*command, "net.ipv6.conf.all.forwarding"]).split() == ["0", "0"]
        route = processes.run(["ip", "-n", name, "route", "show", "default"])
        assert route == ""


def test_addresses_outside_the_lab_get_no_answer(lab: Lab) -> None:
    for address in ("203.0.113.9", "2001:db8:ffff::9"):
        assert "echo" not in send(lab, "serving-1", "udp", (address, 53), "echo")


def test_a_recording_shows_who_meant_to_leave_and_only_them(lab: Lab, tmp_path: Path) -> None:
    quiet, loud = tmp_path / "quiet.pcap", tmp_path / "loud.pcap"
    with cluster.recording(lab, quiet):
        assert ssh(lab, "serving-1", "true").returncode == 0
        send(lab, "serving-1", "tcp", ("192.0.2.1", 443), "hello")
    assert capture.statistics(quiet)["frames"] > 20
    assert cluster.outside(lab, quiet) == []
    tried = {packet.destination for packet in cluster.outside(lab, quiet, own_only=True)}
    assert "192.0.2.1" in tried
    with cluster.recording(lab, loud):
        send(lab, "serving-1", "udp", ("203.0.113.9", 53), "escape")
        send(lab, "serving-1", "udp", ("2001:db8:ffff::9", 53), "escape")
        send(lab, "serving-1", "tcp", ("169.254.169.254", 80), "escape")
    found = {packet.destination for packet in cluster.outside(lab, loud)}
    assert found == {"203.0.113.9", "2001:db8:ffff::9", "169.254.169.254"}


def test_a_recording_sees_each_frame_once(lab: Lab, tmp_path: Path) -> None:
    with cluster.recording(lab, tmp_path / "one.pcap"):
        send(lab, "serving-1", "udp", ("192.0.2.1", 7007), "once")
    frames = [frame for _, _, frame in capture.read(tmp_path / "one.pcap") if b"once" in frame]
    assert len(frames) == 2, "one there, one back"


EFFECTS = {
    "ProtectSystem=strict": "! touch /usr/x && ! touch /etc/x",
    "PrivateTmp=yes": "! test -e /tmp/marker",
    "ProtectHome=yes": "! ls /root",
    "DynamicUser=yes": 'test "$(id -u)" -ge 61184',
    "PrivateDevices=yes": "! test -e /dev/console",
    "ProtectKernelTunables=yes": "! sh -c 'echo 0 > /proc/sys/net/ipv4/tcp_syncookies'",
    "PrivateNetwork=yes": "! test -e /sys/class/net/eth0 || ! ip link show eth0",
    "ProtectProc=invisible": 'test -z "$(find /proc -maxdepth 1 -name 1)"',
    "PrivateUsers=yes": 'test "$(wc -l < /proc/self/uid_map)" -ge 1',
    "NoNewPrivileges=yes": "grep -q 'NoNewPrivs:.1' /proc/self/status",
    "SystemCallFilter=~chmod fchmodat": "! chmod 700 /tmp",
    "RestrictAddressFamilies=AF_UNIX": "! python3 -c 'import socket; socket.socket()'",
    "CapabilityBoundingSet=": "grep -q 'CapBnd:.0000000000000000' /proc/self/status",
    "InaccessiblePaths=/srv": "! ls /srv",
    "MemoryDenyWriteExecute=yes": "! python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'",
    "LoadCredential=name:/etc/hostname": 'test -s "$CREDENTIALS_DIRECTORY/name"',
    "StateDirectory=marker": 'test -w "$STATE_DIRECTORY"',
}


@pytest.mark.parametrize("setting", sorted(EFFECTS))
def test_systemd_sandboxing_takes_effect_on_a_host(lab: Lab, setting: str) -> None:
    on(lab, "serving-1", "touch /tmp/marker")
    user = "" if setting.startswith(("Dynamic", "Private", "ProtectKernel")) else "-p User=nobody"
    effect = EFFECTS[setting].replace("'", "'\\''")
    run = f"systemd-run -q --wait --pipe {user} -p '{setting}' sh -c '{effect}'"
    on(lab, "serving-1", run)


def test_a_host_may_filter_its_packets_and_a_reboot_forgets_the_filter(lab: Lab) -> None:
    host = lab.host("serving-1")
    filtered = (
        "add table inet t; add chain inet t o { type filter hook output priority 0; policy drop; }"
    )
    processes.run(["nsenter", f"--target={host.pid}", "--net", "nft", filtered])
    assert "not permitted" in send(lab, "serving-1", "udp", ("192.0.2.1", 7007), "x")
    on(lab, "serving-1", "touch /root/kept; systemctl reboot", check=False)
    deadline = time.monotonic() + 30
    before = host.pid
    while not (cluster.is_up(lab, host) and host.pid != before):
        assert time.monotonic() < deadline, "the host did not come back after its reboot"
        time.sleep(0.2)
    assert send(lab, "serving-1", "udp", ("192.0.2.1", 7007), "again") == "again"
    on(lab, "serving-1", "test -e /root/kept")


def test_up_again_changes_nothing_and_is_quick(lab: Lab) -> None:
    before = [cluster.is_up(lab, host) and host.pid for host in lab.hosts]
    started = time.monotonic()
    again = cluster.up(lab.name, say=print)
    assert time.monotonic() - started < 1
    assert [host.pid for host in again.hosts] == before


def test_up_mends_a_host_that_was_killed_and_leaves_the_others(lab: Lab) -> None:
    on(lab, "serving-1", "echo kept > /root/kept")
    cluster.stop_host(lab.name, "serving-1")
    assert [host.state for host in cluster.status(lab.name).hosts] == ["up", "down"]
    control = lab.host("control-1").pid
    again = cluster.up(lab.name, say=print)
    assert again.host("control-1").pid == control
    assert on(again, "serving-1", "cat /root/kept") == "kept"


def test_up_mends_a_canary_that_was_killed(lab: Lab) -> None:
    processes.kill(processes.of_namespaces(lab.canary.namespace))
    assert cluster.status(lab.name).canary == "down"
    cluster.up(lab.name, say=print)
    assert send(lab, "serving-1", "udp", ("192.0.2.1", 7007), "alive") == "alive"


def test_labs_coexist_and_hosts_can_be_added(lab: Lab, make_lab: Callable[..., Lab]) -> None:
    other = make_lab("control-1")
    assert other.index != lab.index
    wider = cluster.up(other.name, ["serving-2"], say=print)
    assert [host.name for host in wider.hosts] == ["control-1", "serving-2"]
    assert ssh(wider, "serving-2", "hostname").stdout == "serving-2\n"
    cluster.down(other.name, say=print)
    assert cluster.leftovers(other.name) == []
    assert ssh(lab, "control-1", "true").returncode == 0


def test_two_ups_of_one_name_make_one_lab(make_lab: Callable[..., Lab], lab_state: Path) -> None:
    name, said = "tworaces", []
    results: list[Lab] = []

    def boot() -> None:
        results.append(cluster.up(name, ["control-1"], say=said.append))

    racers = [threading.Thread(target=boot) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    make_lab("control-1", name=name)
    assert results[0].hosts[0].pid == results[1].hosts[0].pid
    assert any("waiting" in line for line in said), f"{said} in {lab_state}"


@pytest.mark.parametrize(
    "after", [0.05, 0.15, 0.25, 0.35, 0.45, 0.65, 0.95, 1.25, 2.05, 0.1, 0.3, 0.5, 0.8]
)
def test_a_kill_in_mid_up_is_mended_or_taken_away(lab_state: Path, after: float) -> None:
    name = f"killed{int(after * 100)}"
    code = "from holdfast_installer.lab import cluster\n"
    code += f"cluster.up({name!r}, ['control-1', 'serving-1'], say=print)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    deadline = time.monotonic() + 30
    while not (lab_state / "lab" / name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(after)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    try:
        if round(after * 100) % 2:  # every other one is taken away as it lies
            assert len(cluster.up(name, say=print).hosts) == 2
    finally:
        cluster.down(name, say=print)
    assert cluster.leftovers(name) == []


def test_leftovers_are_named_and_down_repeats(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("control-1")
    left = "\n".join(cluster.leftovers(lab.name))
    for kind in ("process", "mount", "namespace", "cgroup", "folder"):
        assert kind in left
    cluster.down(lab.name, say=print)
    cluster.down(lab.name, say=print)
    assert cluster.leftovers(lab.name) == []


def test_another_operators_lab_is_not_touched(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path))
    for action in (cluster.up, cluster.down):
        with pytest.raises(HoldfastError, match="another operator"):
            action(lab.name, say=print)


def test_a_lab_is_not_taken_down_from_inside(lab: Lab) -> None:
    code = "from holdfast_installer.lab import cluster\n"
    code += f"cluster.down({lab.name!r}, say=print)"
    line = cluster.command_in(lab, "operator", [sys.executable, "-c", code])
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert "from inside itself" in done.stderr


def test_a_host_that_cannot_boot_is_named_with_its_console(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab("control-1")
    host = lab.hosts[0]
    cluster.stop_host(lab.name, host.name)
    init = machine.machine_dir(lab, host) / "root/usr/lib/systemd/systemd"
    init.rename(init.with_name("gone"))
    with pytest.raises(HoldfastError, match=r"control-1 .* does not come up") as caught:
        cluster.up(lab.name, say=print)
    assert caught.value.where.endswith("console.log")


def test_where_the_disk_cannot_carry_a_layer_it_lies_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for part in ("lower", "upper", "work", "container"):
        (tmp_path / part).mkdir()
    layers = ",".join(f"{part}dir={tmp_path}/{part}" for part in ("lower", "upper", "work"))
    container = tmp_path / "container"
    processes.run(["mount", "-t", "overlay", "-o", layers, "overlay", str(container)])
    monkeypatch.setenv("HOLDFAST_STATE", str(container))
    try:
        lab = cluster.up("inmemory", ["control-1"], say=print)
        layer = machine.machine_dir(lab, lab.hosts[0]) / "layer"
        assert processes.run(["stat", "-f", "-c", "%T", str(layer)]).strip() == "tmpfs"
        cluster.down("inmemory", say=print)
        assert cluster.leftovers("inmemory") == []
    finally:
        cluster.down("inmemory", say=print)
        processes.run(["umount", str(container)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_build_killed_at_any_point_is_done_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path))
    code = "from holdfast_installer.lab import rootfs\nrootfs.ensure(print)"
    for seconds in (1, 6):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        child.kill()
        child.wait()
        assert not rootfs.path().exists()
    said: list[str] = []
    root = rootfs.ensure(said.append)
    assert (root / "usr/sbin/sshd").exists()
    assert sorted(path.name for path in root.parent.iterdir()) == [root.name, f"{root.name}.lock"]


def test_the_root_file_system_is_built_once() -> None:
    said: list[str] = []
    assert rootfs.ensure(said.append) == rootfs.path()
    assert said == []
