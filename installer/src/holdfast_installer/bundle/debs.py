"""What a Debian package says about itself: its control fields and its licence."""

from __future__ import annotations

import re
import subprocess
import tarfile
from typing import TYPE_CHECKING, TypedDict, cast

from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.bundle.store import Store

_SUBJECT = "debs"


class Facts(TypedDict):
    """Control fields as dpkg prints them, and the licences of the copyright file."""

    control: str
    licence: str


def facts(path: Path, digest: str, store: Store) -> Facts:
    """Return a package's facts; reading them once is enough for any later bundle."""
    if known := store.recall(_SUBJECT, digest):
        return cast("Facts", known)
    found = Facts(control=_control(path), licence=_licence(path))
    store.remember(_SUBJECT, digest, found)
    return found


def _control(path: Path) -> str:
    result = subprocess.run(["dpkg-deb", "--field", path], capture_output=True, check=False)
    if result.returncode != 0:
        raise HoldfastError(
            "This is not a Debian package", where=str(path), cause=result.stderr.decode().strip()
        )
    return result.stdout.decode().strip()


def _licence(path: Path) -> str:
    """Return the short names in a machine-readable copyright file, else where to look."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacking:
        try:
            text = _copyright_in(unpacking)
        finally:
            unpacking.kill()
    if text is None:
        return "see the copyright file of its source package"
    names = re.findall(r"^License:[ \t]*(\S.*?)[ \t]*$", text, re.MULTILINE)
    unique = sorted({name.rstrip(",") for name in names})
    if "Format:" not in text[:2000] or not unique:
        return "see /usr/share/doc/*/copyright in the package"
    return " AND ".join(f"({name})" if " " in name else name for name in unique)


def _copyright_in(unpacking: subprocess.Popen[bytes]) -> str | None:
    with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
        for member in archive:
            if re.fullmatch(r"\./usr/share/doc/[^/]+/copyright", member.name) and member.isfile():
                content = archive.extractfile(member)
                return content.read().decode(errors="replace") if content else None
    return None
