"""Takes files out of a Debian package without dpkg, so that no root and no Debian is needed."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"!<arch>\n"
_HEADER = 60  # bytes: name 16, date 12, owner 6, group 6, mode 8, size 10, end mark 2


def shared_libraries(package: Path, into: Path) -> list[Path]:
    """Copy the shared libraries of a package into a folder, links as copies of what they name."""
    with tarfile.open(fileobj=io.BytesIO(_data_archive(package))) as archive:
        members = {member.name.removeprefix("./"): member for member in archive.getmembers()}
        libraries = {
            name: member
            for name, member in members.items()
            if ".so" in name.rpartition("/")[2] and (member.isfile() or member.issym())
        }
        copied = []
        for name, member in libraries.items():
            folder, _, base = name.rpartition("/")
            target = members.get(f"{folder}/{member.linkname}") if member.issym() else member
            content = archive.extractfile(target) if target is not None else None
            if content is None:
                continue
            into.mkdir(parents=True, exist_ok=True)
            path = into / base
            path.write_bytes(content.read())
            copied.append(path)
    return copied


def _data_archive(package: Path) -> bytes:
    """Return the data.tar.* member of the ar archive that a package is."""
    raw = package.read_bytes()
    at = len(_MAGIC)
    if not raw.startswith(_MAGIC):
        raise _not_a_package(package, "it does not begin like an ar archive")
    while at + _HEADER <= len(raw):
        header = raw[at : at + _HEADER]
        name, size = header[:16].decode("ascii", "replace").strip(), header[48:58]
        if header[58:60] != b"`\n" or not size.strip().isdigit():
            raise _not_a_package(package, f"the member at byte {at} has no valid header")
        length = int(size)
        content = raw[at + _HEADER : at + _HEADER + length]
        if name.removesuffix("/").startswith("data.tar"):
            return content
        at += _HEADER + length + length % 2
    raise _not_a_package(package, "it has no data.tar")


def _not_a_package(package: Path, cause: str) -> HoldfastError:
    return HoldfastError("This is not a Debian package", where=str(package), cause=cause)
