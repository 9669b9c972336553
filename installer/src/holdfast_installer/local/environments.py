"""Python environments from the wheels of a bundle: offline, hash-checked, without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from holdfast_installer.bundle.durable import disk_full_told, require_free
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.bundle.verify import VerifiedBundle

_DONE = ".complete"  # written last: an environment without it was interrupted
_UNPACKED = 4  # an environment takes at most this many times the size of its wheels


def build(bundle: VerifiedBundle, name: str, root: Path, uv: Path) -> Path:
    """Return the environment's folder under `root`, built first where it is not complete.

    Wheels come from the bundle alone; bytecode is compiled once, because nobody writes there later.
    """
    environment = bundle.environment(name)
    folder = root / f"{name}-{environment.short}"
    if (folder / _DONE).exists():
        return folder
    python = interpreter(environment.python)
    wheels = bundle.wheels(name)
    require_free(
        root, sum(each.size for each in wheels) * _UNPACKED, purpose=f"the environment {name}"
    )
    shutil.rmtree(folder, ignore_errors=True)
    staging = root / f".wheels-{name}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with disk_full_told(root):
            for wheel in wheels:
                (staging / wheel.filename).symlink_to(bundle.blob(wheel.digest).resolve())
            _uv(uv, staging, "venv", "--quiet", "--python", python, str(folder))
            _uv(
                *(uv, staging, "pip", "install", "--quiet", "--python", str(folder / "bin/python")),
                *("--no-index", "--find-links", str(staging), "--require-hashes", "--no-deps"),
                *(
                    "--compile-bytecode",
                    "--requirements",
                    str(bundle.blob(environment.requirements)),
                ),
            )
            (folder / _DONE).touch()
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def uv_of(bundle: VerifiedBundle, tools: Path) -> Path:
    """Take the uv program out of the bundle's own wheel."""
    wheel = next((each for each in bundle.manifest.of_kind("wheel") if each.name == "uv"), None)
    if wheel is None:
        raise HoldfastError(
            "The bundle has no uv, so no environment can be built from it",
            where=str(bundle.directory),
            next_command="holdfast bundle lock, then bundle build, with this release of holdfast",
        )
    program = tools / f"uv-{wheel.version}"
    if not program.exists():
        with zipfile.ZipFile(bundle.blob(wheel.digest)) as archive:
            inside = next(
                entry for entry in archive.namelist() if entry.endswith(".data/scripts/uv")
            )
            partial = program.with_suffix(".partial")
            partial.write_bytes(archive.read(inside))
        partial.chmod(0o755)
        partial.rename(program)
    return program


def interpreter(version: str) -> str:
    """Return a Python of the version the wheels are for; the running one where it fits."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return str(sys.executable)
    found = shutil.which(f"python{version}")
    if found is None:
        raise HoldfastError(
            f"This machine has no Python {version}, which the bundle's wheels are for",
            cause=f"holdfast itself runs in {sys.version_info.major}.{sys.version_info.minor}",
            next_command=f"install python{version} (Debian 12 has 3.11), then run this again",
        )
    return found


def _uv(uv: Path, staging: Path, *arguments: str) -> None:
    """Run uv with a cache of its own beside the wheels: what it unpacks is linked, not copied."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))
    }
    environment |= {
        "UV_CACHE_DIR": str(staging / "cache"),
        "UV_OFFLINE": "1",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    done = subprocess.run(
        [str(uv), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise HoldfastError(
            "An environment could not be built from the bundle",
            where=f"uv {arguments[0]}",
            cause=done.stderr.strip()[-2000:],
            next_command="holdfast bundle verify DIR, then the same command again",
        )
