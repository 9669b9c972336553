"""Build the root file system that every lab host starts from, once, with mmdebstrap."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab import apt_sources
from holdfast_installer.lab.disk import remove_tree
from holdfast_installer.lab.processes import environment
from holdfast_installer.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RELEASE = "bookworm"
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "python3",
    "systemd",
    "systemd-sysv",
)
_RECIPE = 1  # raise it when the hooks below change what comes out

# What mmdebstrap brings in from this machine or from the build must not reach a host: a host
# begins with no package source, no resolver, no name, no keys. The two timers would take the
# apt lock in mid-apply, at a time of their own choosing.
_BUILD_SETTINGS = "/etc/apt/apt.conf.d/00holdfast-build"
_CLEAN = """
set -eu
root="$1"
rm -rf "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/00holdfast-build
: > "$root/etc/apt/sources.list"
rm -f "$root"/etc/resolv.conf "$root"/etc/hostname "$root"/etc/ssh/ssh_host_*
: > "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/log/apt/* "$root"/var/log/*.log
systemctl --quiet --root="$root" disable apt-daily.timer apt-daily-upgrade.timer
"""


def key() -> str:
    """Return the content key: the same key means the same recipe, packages and suites."""
    recipe = [_RECIPE, RELEASE, PACKAGES, apt_sources.SUITES, _CLEAN]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def path() -> Path:
    """Return where the root file system is, or will be."""
    return cache_dir() / "lab" / f"rootfs-{key()}"


def ensure(say: Callable[[str], None]) -> Path:
    """Return the root file system, building it where it is missing; safe to be killed in."""
    target = path()
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another holdfast builds the root file system; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _build(target, lock.fileno(), say)
    return target


def _build(target: Path, lock: int, say: Callable[[str], None]) -> None:
    partial = target.with_name(f"{target.name}.partial")
    work = target.with_name(f"{target.name}.work")
    for folder in (partial, work):
        remove_tree(folder)
    work.mkdir()
    sources = apt_sources.for_release()
    (work / "apt.conf").write_text(apt_sources.acquire_settings())
    (work / "clean").write_text(_CLEAN)
    command = [
        # Mounts of its own, that end with it: one killed in the middle unmounts nothing.
        *("unshare", "--mount", "--propagation=private"),
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        f"--setup-hook=upload {shlex.quote(str(work / 'apt.conf'))} {_BUILD_SETTINGS}",
        f'--customize-hook=sh {shlex.quote(str(work / "clean"))} "$1"',
        RELEASE,
        str(partial),
        "-",
    ]
    say(f"building the root file system ({RELEASE}, {len(PACKAGES)} packages and their needs)")
    lines = _run(command, sources, lock, say)
    if lines is not None:
        raise HoldfastError(
            "the root file system could not be built",
            where=str(partial),
            cause=" / ".join(lines[-3:]),
            next_command="apt-get update",
        )
    partial.chmod(0o755)
    partial.rename(target)
    shutil.rmtree(work)


def _run(
    command: list[str], sources: str, lock: int, say: Callable[[str], None]
) -> list[str] | None:
    """Run mmdebstrap, passing its stages on; return its last lines where it failed.

    It holds the lock as well: where this process is killed, the next one waits for its end.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(),
        pass_fds=(lock,),
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise AssertionError  # Popen gives both where PIPE was asked for
        child.stdin.write(sources)
        child.stdin.close()
        lines: list[str] = []
        for line in child.stdout:
            text = line.strip()
            lines = [*lines[-20:], text] if text else lines
            if text.startswith("I: "):
                say(text.removeprefix("I: "))
    return lines if child.returncode else None
