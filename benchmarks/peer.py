"""Peers to measure against: each in an environment of its own that the cache keeps, pinned."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from workshop import NotMeasuredError

from holdfast_installer.paths import cache_dir


def program(peer: str, command: str) -> Path:
    """Return a peer's command, installed from peers/<peer>.txt where it is not yet."""
    pins = Path(__file__).with_name("peers") / f"{peer}.txt"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:16]
    folder = cache_dir() / "peers" / f"{peer}-{digest}"
    found = folder / "bin" / command
    if not found.exists():
        pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
        pip += ["--quiet", "--require-hashes", "--no-deps", "--requirement", pins]
        try:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            subprocess.run(pip, check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            raise NotMeasuredError(f"{peer} cannot be installed: {error.stderr}") from error
    return found
