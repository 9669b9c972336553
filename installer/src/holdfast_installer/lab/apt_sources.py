"""Read this machine's own apt configuration, so that the lab is built from where it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from holdfast_installer.errors import HoldfastError

SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
_COMPONENT = "main"

# Settings of how to fetch: proxies, certificates, retries. Not of what to fetch.
_NOT_HOW = ("IndexTargets", "Languages", "CompressionTypes", "Changelogs", "GzipIndexes")


def for_release() -> str:
    """Return deb822 stanzas with the Debian 12 sources of this machine, keyrings included."""
    list_file, parts = _configured_paths()
    found = []
    if list_file.is_file():
        found += from_list(list_file.read_text())
    if parts.is_dir():
        for path in sorted(parts.iterdir()):
            if path.suffix == ".list":
                found += from_list(path.read_text())
            elif path.suffix == ".sources":
                found += from_deb822(path.read_text())
    chosen = [stanza for source in found if (stanza := _restrict(source))]
    if not any("bookworm" in stanza["Suites"].split() for stanza in chosen):
        raise HoldfastError(
            "apt on this machine has no source for Debian 12 (bookworm)",
            where=f"{list_file}, {parts}",
            cause="the lab's hosts are Debian 12, and are built from this machine's sources",
            next_command="add a source for bookworm main, then apt-get update",
        )
    return "\n".join(
        "".join(f"{name}: {value}\n" for name, value in stanza.items()) for stanza in chosen
    )


def from_list(text: str) -> list[dict[str, str]]:
    """Return the binary sources of a one-line style file as deb822 fields."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)"
            r"(?:\s+(?P<components>[^#]*))?(?:#.*)?",
            line.strip(),
        )
        if not match:
            continue
        fields = {"Types": "deb", "URIs": match["uri"], "Suites": match["suite"]}
        fields["Components"] = (match["components"] or "").strip()
        for option in shlex.split(match["options"] or ""):
            name, _, value = option.partition("=")
            if name.lower() in {"signed-by", "trusted", "check-valid-until"}:
                fields[name.title()] = value
        found.append(fields)
    return found


def from_deb822(text: str) -> list[dict[str, str]]:
    """Return the stanzas of a deb822 file, keeping values of several lines as they are."""
    found: list[dict[str, str]] = []
    for block in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace() and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                name = _spelled(name)
                fields[name] = value.strip()
        if fields:
            found.append(fields)
    return found


def _spelled(name: str) -> str:
    return {"uris": "URIs"}.get(name.strip().lower(), name.strip().title())


def _restrict(fields: dict[str, str]) -> dict[str, str] | None:
    """Return the part of a source that is Debian 12 main, or None where it has none."""
    suites = [suite for suite in fields.get("Suites", "").split() if suite in SUITES]
    wanted = (
        suites
        and "deb" in fields.get("Types", "").split()
        and _COMPONENT in fields.get("Components", "").split()
        and fields.get("Enabled", "yes").lower() not in {"no", "false", "0"}
    )
    if not wanted:
        return None
    chosen = {"Types": "deb", "URIs": fields["URIs"], "Suites": " ".join(suites)}
    chosen["Components"] = _COMPONENT
    for name in ("Signed-By", "Trusted", "Check-Valid-Until"):
        if name in fields:
            chosen[name] = fields[name]
    return chosen


def acquire_settings() -> str:
    """Return this machine's settings for fetching, for the time of the build only."""
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True
    ).stdout
    skipped = tuple(f"Acquire::{name}" for name in _NOT_HOW)
    kept = [
        line
        for line in dump.splitlines()
        if not line.startswith(skipped) and not line.startswith("Acquire ")
    ]
    # mmdebstrap points apt at the new root; credentials stay where they are.
    kept.append('Dir::Etc::netrc "/etc/apt/auth.conf";')
    kept.append('Dir::Etc::netrcparts "/etc/apt/auth.conf.d";')
    return "\n".join(kept) + "\n"


def _configured_paths() -> tuple[Path, Path]:
    command = ["apt-config", "shell"]
    command += ["LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    values = dict(part.split("=", 1) for part in shlex.split(answer))
    return Path(values["LIST"]), Path(values["PARTS"])
