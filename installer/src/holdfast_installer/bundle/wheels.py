"""Python closures: resolved by pip for the target, narrowed to what is not left out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    cast,
)  # Any: pip's report is foreign JSON, read field by field

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from holdfast_installer.bundle.lockfile import PYTHON, EnvironmentSource
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# glibc 2.36 is Debian 12's. pip takes the list literally: every older manylinux is named.
_PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
)
_TARGET = (
    *("--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON),
    *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
    *(part for name in _PLATFORMS for part in ("--platform", name)),
)


@dataclass(frozen=True)
class Wheel:
    """One wheel of a closure; `address` is where pip found it and stays out of locks."""

    name: str
    version: str
    filename: str
    digest: str  # "" when the index does not tell
    licence: str
    origin: str
    address: str


@dataclass(frozen=True)
class Closure:
    """The wheels of an environment, and what stays out with the reason."""

    wheels: tuple[Wheel, ...]
    excluded: dict[str, str]


def resolve(
    name: str, source: EnvironmentSource, projects: Mapping[str, Path], *, folder: Path
) -> Closure:
    """Resolve one environment; `projects` are the workspace's wheels it asked for, already built.

    pip's own configuration decides the indexes. `source.index` is added only when those do not
    suffice: pip cannot ask an index for a single missing distribution.
    """
    asked = [*source.requirements, *(str(wheel) for wheel in projects.values())]
    report = folder / f"{name}.json"
    try:
        _pip(asked, report)
        index = ""
    except HoldfastError:
        if source.index is None:
            raise
        _pip(asked, report, source.index)
        index = source.index
    found = json.loads(report.read_bytes())["install"]
    distributions = {canonicalize_name(entry["metadata"]["name"]): entry for entry in found}
    roots = [Requirement(line) for line in source.requirements]
    roots += [Requirement(project) for project in projects]
    out = {canonicalize_name(left): reason for left, reason in source.exclude.items()}
    kept = _reachable(roots, distributions, frozenset(out))
    for orphan in sorted(distributions.keys() - kept - out.keys()):
        out[orphan] = "only what is left out needs it"
    local = {wheel.name for wheel in projects.values()}
    return Closure(
        wheels=tuple(_wheel(distributions[each], local, index, name) for each in sorted(kept)),
        excluded={each: out[each] for each in sorted(out) if each in distributions},
    )


def addresses(pins: Iterable[tuple[str, str, str]], index: str | None) -> dict[str, str]:
    """Ask pip where wheels pinned as (name, version, digest) are; return digest -> address."""
    with tempfile.TemporaryDirectory(prefix="holdfast-pip-") as scratch:
        pinned = Path(scratch) / "pinned.txt"
        pinned.write_text(requirements_text(pins), encoding="utf-8")
        report = Path(scratch) / "report.json"
        asked = ["--no-deps", "--require-hashes", "-r", str(pinned)]
        try:
            _pip(asked, report)
        except HoldfastError:
            if index is None:
                raise
            _pip(asked, report, index)
        entries = json.loads(report.read_bytes())["install"]
    return {
        f"sha256:{entry['download_info']['archive_info']['hashes']['sha256']}": entry[
            "download_info"
        ]["url"]
        for entry in entries
    }


def requirements_text(pins: Iterable[tuple[str, str, str]]) -> str:
    """Return a hash-pinned requirements file of (name, version, digest), without addresses."""
    return "".join(f"{name}=={version} --hash={digest}\n" for name, version, digest in sorted(pins))


def check_interpreter() -> None:
    """Refuse to resolve on an interpreter whose environment markers are not the target's."""
    here = (sys.implementation.name, f"{sys.version_info[0]}.{sys.version_info[1]}", sys.platform)
    if here != ("cpython", PYTHON, "linux"):
        raise HoldfastError(
            f"Locking needs CPython {PYTHON} on Linux, the target's interpreter",
            cause=f"this is {' '.join(here)}: markers like python_version would decide otherwise",
            next_command=f"run holdfast from a virtual environment of python{PYTHON}",
        )


def _pip(arguments: list[str], report: Path, index: str | None = None) -> None:
    """Run a resolution with pip's own configuration; nothing is installed."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
        *("--quiet", "--no-input", "--disable-pip-version-check", "--report", str(report)),
        *_TARGET,
        *(("--extra-index-url", index) if index else ()),
        *arguments,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        asked = [each for each in arguments if not each.startswith("-")]
        raise HoldfastError(
            "pip found no set of wheels for the target",
            where=", ".join(Path(each).name for each in asked),
            cause="\n         ".join(errors) or result.stderr.strip(),
            next_command="python -m pip config list  # the indexes that were asked",
        )


def _reachable(
    roots: Iterable[Requirement],
    distributions: Mapping[NormalizedName, dict[str, Any]],
    out: frozenset[NormalizedName],
) -> set[NormalizedName]:
    """Walk requirements from the roots, extras and markers honoured, around what is left out."""
    environment: dict[str, str] = {
        **cast("dict[str, str]", default_environment()),
        "python_version": PYTHON,
    }
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    waiting = [(canonicalize_name(root.name), frozenset(root.extras)) for root in roots]
    while waiting:
        node = waiting.pop()
        name, extras = node
        if node in seen or name in out or name not in distributions:
            continue
        seen.add(node)
        for line in distributions[name]["metadata"].get("requires_dist", []):
            needed = Requirement(line)
            wanted = needed.marker is None or any(
                needed.marker.evaluate({**environment, "extra": extra}) for extra in ("", *extras)
            )
            if wanted:
                waiting.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    return {name for name, _ in seen}


def _wheel(entry: dict[str, Any], local: set[str], index: str, environment: str) -> Wheel:
    address = entry["download_info"]["url"]
    parts = urllib.parse.urlsplit(address)
    filename = urllib.parse.unquote(parts.path.rsplit("/", 1)[-1])
    if parts.scheme == "file":
        origin = "local" if filename in local else "find-links"
    elif index and parts.netloc == urllib.parse.urlsplit(index).netloc:
        origin = f"index of {environment}"
    else:
        origin = "pypi"
    hashes = entry["download_info"].get("archive_info", {}).get("hashes", {})
    metadata = entry["metadata"]
    return Wheel(
        name=canonicalize_name(metadata["name"]),
        version=metadata["version"],
        filename=filename,
        digest=f"sha256:{hashes['sha256']}" if "sha256" in hashes else "",
        licence=_licence(metadata),
        origin=origin,
        address=address,
    )


def _licence(metadata: dict[str, Any]) -> str:
    """Return the licence a wheel states: expression, else classifiers, else the short field."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    classified = [
        line.rsplit(" :: ", 1)[-1]
        for line in metadata.get("classifier", [])
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    if classified:
        return "; ".join(classified)
    stated = str(metadata.get("license") or "").strip().splitlines()
    return stated[0][:80] if stated else "not stated"


def download(name: str, version: str, digest: str, folder: Path, index: str | None = None) -> None:
    """Fetch one wheel into `folder` with pip itself, which knows credentials we do not."""
    folder.mkdir(parents=True, exist_ok=True)
    pinned = folder / "pinned.txt"
    hashed = f" --hash={digest}" if digest else ""
    pinned.write_text(f"{name}=={version}{hashed}\n", encoding="utf-8")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
            *("--disable-pip-version-check", *_TARGET, "-d", str(folder), "-r", str(pinned)),
            *(("--extra-index-url", index) if index else ()),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise HoldfastError(
            "pip could not fetch a wheel",
            where=f"{name}=={version}",
            cause=result.stderr.strip(),
            next_command="python -m pip config list  # the indexes that were asked",
        )
