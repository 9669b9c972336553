"""Stock clients of other versions, each in a virtual environment made once and kept in the cache.

What is in one is pinned with hashes in clients/NAME.txt; what that file says, and the interpreter,
name its folder, so a change of either makes another. clients/README.md says how they are pinned.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from holdfast_installer.paths import cache_dir
from holdfast_profiles import read
from required import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

PINS = Path(__file__).with_name("clients")
NEWEST = "newest"  # what the platform itself is built with
_DONE = ".complete"  # written last: an environment without it was interrupted


def interpreter(name: str) -> Path:
    """Return the Python of a client, its environment made first where it is missing."""
    if name == NEWEST:
        return Path(sys.executable)
    pins = PINS / f"{name}.txt"
    version = f"{sys.implementation.cache_tag} {sys.platform} {os.uname().machine}"
    digest = hashlib.sha256(version.encode() + pins.read_bytes()).hexdigest()
    root = cache_dir() / "clients"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{name}-{digest[:16]}"
    with _alone(root / f"{folder.name}.lock"):
        if not (folder / _DONE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, pins)
            (folder / _DONE).touch()
    return folder / "bin" / "python"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, pins: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    done = _install(folder, pins)
    if done.returncode:
        # Only what the configured indexes do not have is worth asking another: torch for CPUs.
        index = yaml.safe_load(read("hardware", "cpu-low-power"))["wheels"]["index"]
        done = _install(folder, pins, "--extra-index-url", index)
    if done.returncode:
        shutil.rmtree(folder)
        lacking(f"the stock clients of {pins.name} cannot be installed: {done.stderr[-2000:]}")


def _install(folder: Path, pins: Path, *options: str) -> subprocess.CompletedProcess[str]:
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    return subprocess.run(
        [
            *(*pip, "install", "--quiet", "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--requirement", str(pins), *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
