"""Archives and compressed files: recognised, listed within bounds, never unpacked."""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO, Final

from holdfast_model_registry.formats import pickles

MAX_ENTRIES: Final = 50_000
MAX_DIRECTORY: Final = 4 << 20
BOMB_RATIO: Final = 200
BOMB_SIZE: Final = 1 << 30
_END: Final = struct.Struct("<4s4H2LH")
_TAIL: Final = _END.size + (1 << 16)
_LOCATOR: Final = b"PK\x06\x07"  # where files past 4 GB keep the end of their directory
_MAX_PICKLES: Final = 20

SIGNATURES: Final = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstandard"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"MSCF", "cabinet"),
    (b"\x1f\x9d", "compress"),
    (b"xar!", "xar"),
    (b"!<arch>\n", "ar"),
)


def kind_of(head: bytes) -> str:
    """Return which kind of archive begins like this, '' for none."""
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    return "tar" if head[257:262] == b"ustar" else ""


def ends_as_zip(file: BinaryIO, size: int) -> bool:
    """Tell whether a zip directory ends the file, whatever it begins with.

    Readers of zip look at the end: a file can be something else to those who look at its start.
    """
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + _END.size <= len(tail):
            end = size - len(tail) + at
            length, comment = _END.unpack_from(tail, at)[5], _END.unpack_from(tail, at)[7]
            if tail[max(0, at - 20) :].startswith(_LOCATOR):
                return True
            # Weights may hold these four bytes by chance, but not a directory before them too.
            if 0 < length <= end and at + _END.size + comment <= len(tail):
                file.seek(end - length)
                if file.read(4) == b"PK\x01\x02":
                    return True
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return False


def look_into_zip(file: BinaryIO, size: int, *, deep: bool) -> tuple[bool, list[str], bool]:
    """Return whether a zip holds pickles, what scanners say of it, and whether that is danger.

    Without `deep` only its directory is read.
    """
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    if not 0 <= _directory_size(file, tail) <= MAX_DIRECTORY:
        return False, ["its directory is missing or too large to read"], True
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            return _inventory(archive, deep=deep)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RuntimeError) as error:
        return False, [f"it cannot be read: {str(error)[:100]}"], True
    except (EOFError, zipfile.LargeZipFile, struct.error, LookupError) as error:
        return False, [f"it cannot be read: {type(error).__name__}"], True


def _directory_size(file: BinaryIO, tail: bytes) -> int:
    """Return the size in bytes of the directory, -1 for none; large files have it elsewhere."""
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        return -1
    if at < 20 or not tail[at - 20 :].startswith(_LOCATOR):
        return int(_END.unpack_from(tail, at)[5])
    file.seek(min(int.from_bytes(tail[at - 12 : at - 4], "little"), 1 << 62))
    record = file.read(48)
    return int.from_bytes(record[40:48], "little") if record.startswith(b"PK\x06\x06") else -1


def _inventory(archive: zipfile.ZipFile, *, deep: bool) -> tuple[bool, list[str], bool]:
    entries = archive.infolist()
    advice: list[str] = []
    dangerous = False
    unpacked = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MAX_ENTRIES:
        return False, [f"{len(entries)} entries"], True
    if unpacked > BOMB_SIZE and unpacked > BOMB_RATIO * max(packed, 1):
        advice.append(f"{packed} bytes unpack to {unpacked}: a bomb")
        dangerous = True
    if any(_escapes(entry.filename) for entry in entries):
        advice.append("an entry would be written outside of its folder")
        dangerous = True
    held = [entry for entry in entries if entry.filename.endswith((".pkl", ".pickle", ".pt"))]
    for entry in held[:_MAX_PICKLES] if deep else ():
        with archive.open(entry) as stream:
            found = pickles.walk(stream.read(pickles.MAX_READ))
        advice += [f"{entry.filename} imports {name}" for name in found.suspicious[:10]]
        dangerous = dangerous or bool(found.dangerous)
    return bool(held), advice, dangerous


def _escapes(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")
