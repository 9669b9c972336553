"""The workspace's own distributions as wheels, byte for byte the same from the same tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import zipfile
from email.parser import BytesParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle.durable import die_with_parent
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPOCH = "1577836800"  # 2020-01-01: zip has no date before 1980, and any fixed one will do


def build(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """Build wheels of the named projects into `folder`; return name -> wheel."""
    wanted = sorted(set(names))
    sources = [str(_source_folder(name)) for name in wanted]
    if not sources:
        return {}
    with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as scratch:
        result = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-input"),
                *("--no-build-isolation", "--disable-pip-version-check", "--no-cache-dir"),
                *("--wheel-dir", scratch, *sources),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH},
            preexec_fn=die_with_parent,
        )
        if result.returncode != 0:
            raise HoldfastError(
                "The platform's own wheels could not be built",
                where=", ".join(sources),
                cause=result.stderr.strip(),
                next_command="python -m pip wheel --no-deps --no-build-isolation PROJECT",
            )
        built = {}
        for wheel in sorted(Path(scratch).glob("*.whl")):
            name = wheel.name.split("-", 1)[0].replace("_", "-").lower()
            built[name] = wheel.rename(folder / wheel.name)
    return built


def requirements_of(wheel: Path) -> list[str]:
    """Return the Requires-Dist lines of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = BytesParser().parsebytes(archive.read(name))
    return sorted(metadata.get_all("Requires-Dist") or [])


def _source_folder(name: str) -> Path:
    """Return the folder a project was installed from: this holdfast runs from a checkout."""
    try:
        told = distribution(name).read_text("direct_url.json")
    except PackageNotFoundError:
        told = None
    address = json.loads(told)["url"] if told else ""
    if not address.startswith("file:"):
        raise HoldfastError(
            f"{name} is not installed from a checkout, so its wheel cannot be built",
            cause="bundles carry the platform's own code as it stands in the checkout",
            next_command="make quickstart  # in a clone: installs all distributions from it",
        )
    path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
    if not path.is_dir():
        raise HoldfastError(f"The checkout of {name} is gone", where=str(path))
    return path
