"""apt in a private root: this machine's sources and proxies, none of its installed packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_installer.bundle.durable import die_with_parent, write_atomically
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The base every Debian host has. It is in the closure, so that packages which must match it to
# the letter (libc6-dev and libc6) find what they need whatever point release a host was born with.
BASE = ("?essential", "?priority(required)", "apt")

# `#clear`: hooks of this machine (packagekit, docker images) have no business in a private root.
_CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "{user}";
Acquire::Languages "none";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Log "{root}/log";
Dir::Etc::sourcelist "{root}/sources.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{root}/preferences";
Dir::Etc::preferencesparts "/dev/null";
"""

# A mirror keeps Debian's Release files, and so their Origin; nobody else's packages may answer.
_PREFERENCES = """\
Package: *
Pin: release o=Debian
Pin-Priority: 500

Package: *
Pin: release *
Pin-Priority: -1
"""


@dataclass(frozen=True)
class Package:
    """One package of the closure; `address` is where apt would fetch it and stays out of locks."""

    name: str
    version: str
    architecture: str
    filename: str
    size: int
    digest: str
    suite: str
    address: str


class AptRoot:
    """A folder in which apt resolves for a release without looking at this machine's packages."""

    def __init__(
        self, folder: Path, *, release: str, architecture: str, etc: Path | None = None
    ) -> None:
        self.folder = folder
        self._release = release
        for part in ("state/lists/partial", "cache/archives/partial", "log"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        etc = etc or _system_etc()
        sources = "\n\n".join(_debian_sources(etc, release, architecture))
        if not sources:
            raise HoldfastError(
                f"apt has no source for Debian {release} on this machine",
                where=str(etc),
                cause="no enabled deb entry names the suite with component main",
                next_command=f"add one for suite {release}, component main, then try again",
            )
        write_atomically(folder / "sources.sources", sources.encode() + b"\n")
        write_atomically(folder / "preferences", _PREFERENCES.encode())
        write_atomically(folder / "status", b"")
        self._configuration = folder / "apt.conf"
        write_atomically(
            self._configuration,
            _CONFIGURATION.format(
                root=folder,
                architecture=architecture,
                user="root" if os.geteuid() == 0 else "_apt",
            ).encode(),
        )

    def update(self) -> None:
        """Fetch the package indexes and check their signatures, as `apt-get update` does."""
        self._run("apt-get", "update", "-qq", "--error-on=any")

    def closure(self, names: Iterable[str]) -> list[Package]:
        """Return all packages that `names` need on an empty system, without recommends."""
        lines = self._run(
            "apt-get", "install", "--print-uris", "-qq", "-y", *BASE, *sorted(set(names))
        )
        found = [_parse_uri(line) for line in lines.splitlines() if line.startswith("'")]
        details = self._details(f"{name}={version}" for name, version, _, _ in found)
        return [
            Package(
                name=name,
                version=version,
                architecture=details[name, version]["Architecture"],
                filename=filename,
                size=int(details[name, version]["Size"]),
                digest="sha256:" + details[name, version]["SHA256"],
                suite=self._release,
                address=address,
            )
            for name, version, filename, address in found
        ]

    def addresses(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return where to fetch each (name, version) that the sources still have."""
        found: dict[tuple[str, str], str] = {}
        for name, version in wanted:
            try:
                lines = self._run("apt-get", "download", "--print-uris", "-qq", f"{name}={version}")
            except HoldfastError:
                continue  # the caller names what is gone
            for line in lines.splitlines():
                if line.startswith("'"):
                    found[name, version] = _parse_uri(line)[3]
        return found

    def fetch(self, wanted: list[tuple[str, Path, str]]) -> subprocess.Popen[str]:
        """Start fetching (address, target, digest) triples through apt's own methods.

        apt continues a target that is there in part, and checks the digest.
        """
        arguments = [
            part
            for address, target, digest in wanted
            for part in (address, str(target), digest.replace("sha256:", "SHA256:"))
        ]
        helper = Path("/usr/lib/apt/apt-helper")
        return subprocess.Popen(
            [helper, "-c", self._configuration, "-q", "download-file", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl call, no locks taken
        )

    def _details(self, pinned: Iterable[str]) -> dict[tuple[str, str], dict[str, str]]:
        found: dict[tuple[str, str], dict[str, str]] = {}
        text = self._run("apt-cache", "show", "--no-all-versions", *pinned)
        for stanza in text.split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
            if "Package" in fields:
                found[fields["Package"], fields["Version"]] = fields
        return found

    def _run(self, tool: str, *arguments: str) -> str:
        if shutil.which(tool) is None:
            raise HoldfastError(
                f"{tool} is not installed here",
                cause="Debian packages are resolved by apt itself",
                next_command="run this on Debian or a derivative",
            )
        result = subprocess.run(
            [tool, "-c", self._configuration, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
        )
        if result.returncode != 0:
            raise HoldfastError(
                f"{tool} {arguments[0]} failed",
                where=str(self._configuration),
                cause=result.stderr.strip() or result.stdout.strip(),
                next_command=f"{tool} -c {self._configuration} {arguments[0]} …",
            )
        return result.stdout


def _parse_uri(line: str) -> tuple[str, str, str, str]:
    """Split a line of --print-uris into name, version, filename, address."""
    address, filename = re.findall(r"^'([^']+)' (\S+)", line)[0]
    name, version, _ = filename.removesuffix(".deb").split("_")
    # Without the epoch, as Debian's own pool has it: %3a in a file name is quoted twice in URLs.
    return name, urllib.parse.unquote(version), re.sub(r"_\d+%3a", "_", filename), address


def _system_etc() -> Path:
    result = subprocess.run(
        ["apt-config", "shell", "ETC", "Dir::Etc/d"], capture_output=True, text=True, check=False
    )
    found = re.search(r"ETC='([^']+)'", result.stdout)
    return Path(found[1]) if found else Path("/etc/apt")


def _debian_sources(etc: Path, release: str, architecture: str) -> Iterator[str]:
    """Yield deb822 stanzas of the operator's sources, narrowed to the release and to main."""
    suites = {release, f"{release}-updates", f"{release}-security", f"{release}/updates"}
    files = [etc / "sources.list"]
    parts = etc / "sources.list.d"
    files += sorted([*parts.glob("*.list"), *parts.glob("*.sources")])
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        stanzas = _deb822(text) if file.suffix == ".sources" else _one_line(text)
        for stanza in stanzas:
            wanted = [suite for suite in stanza.get("Suites", "").split() if suite in suites]
            if (
                wanted
                and "deb" in stanza.get("Types", "").split()
                and "main" in stanza.get("Components", "").split()
                and stanza.get("Enabled", "yes").lower() not in {"no", "false", "0"}
            ):
                narrowed = stanza | {
                    "Types": "deb",
                    "Suites": " ".join(wanted),
                    "Components": "main",
                    "Architectures": architecture,
                }
                yield "\n".join(f"{key}: {value}" for key, value in narrowed.items())


def _deb822(text: str) -> Iterator[dict[str, str]]:
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for block in re.split(r"\n\s*\n", kept):
        fields = re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE)
        if fields:
            yield {key.title(): value for key, value in fields}


def _one_line(text: str) -> Iterator[dict[str, str]]:
    options = {"signed-by": "Signed-By", "trusted": "Trusted", "check-date": "Check-Date"}
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line)
        if match is None:
            continue
        given = dict(pair.split("=", 1) for pair in (match[1] or "").split() if "=" in pair)
        yield {
            "Types": "deb",
            "Uris": match[2],
            "Suites": match[3],
            "Components": match[4].strip(),
        } | {options[key.lower()]: value for key, value in given.items() if key.lower() in options}
