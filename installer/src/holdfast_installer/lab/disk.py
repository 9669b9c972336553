"""Overlay file systems of the hosts: mount, unmount, and delete without crossing a mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

from holdfast_installer.errors import HoldfastError
from holdfast_installer.lab.processes import run


def mounts_below(folder: Path) -> list[Path]:
    """Return the mount points at or below `folder`, the deepest first."""
    inside = str(folder)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == inside or point.startswith(f"{inside}/"):
            found.append(Path(point))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything at or below `folder`; what is still in use goes when its user goes."""
    for point in mounts_below(folder):
        plain = subprocess.run(["umount", str(point)], capture_output=True, check=False)
        if plain.returncode:
            run(["umount", "--lazy", str(point)])


def remove_tree(folder: Path) -> None:
    """Delete a folder, refusing where something is mounted in it."""
    if mounted := mounts_below(folder):
        raise HoldfastError(
            f"{folder} is not deleted: something is mounted in it", where=str(mounted[0])
        )
    run(["rm", "-rf", "--one-file-system", str(folder)])


def mount_overlay(lower: Path, machine: Path) -> Path:
    """Mount the host's own layer over the root file system and return the mount point.

    The layer lies on disk; where the disk cannot carry one (an overlay itself, as in a
    container) it lies in memory and is lost with the machine's next boot.
    """
    merged = machine / "root"
    if merged in mounts_below(merged):
        return merged
    for part in ("layer/upper", "layer/work", "root"):
        (machine / part).mkdir(parents=True, exist_ok=True)
    if _overlay(lower, machine).returncode == 0:
        return merged
    layer = machine / "layer"
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "holdfast-lab", str(layer)])
    for part in ("upper", "work"):
        (layer / part).mkdir()
    done = _overlay(lower, machine)
    if done.returncode:
        raise HoldfastError(
            "overlayfs cannot be mounted",
            where=str(merged),
            cause=done.stderr.strip().splitlines()[0],
            next_command="modprobe overlay",
        )
    return merged


def _overlay(lower: Path, machine: Path) -> subprocess.CompletedProcess[str]:
    layers = f"lowerdir={lower},upperdir={machine}/layer/upper,workdir={machine}/layer/work"
    command = ["mount", "-t", "overlay", "-o", layers, "holdfast-lab", str(machine / "root")]
    return subprocess.run(command, capture_output=True, text=True, check=False)
