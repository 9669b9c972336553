"""Which format a file has, by its content; the name only says what it is expected to be."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from holdfast_model_registry.formats import archives, gguf, pickles, protobuf
from holdfast_model_registry.formats.observation import (
    ARCHIVE,
    CODE,
    EXECUTABLE,
    OTHER,
    PICKLE,
    FormatError,
    Observation,
)
from holdfast_model_registry.formats.safetensors import read_header

if TYPE_CHECKING:
    from pathlib import Path

# Larger text is read in the background: who uploads need not wait for it.
INLINE_SIZE: Final = 32 << 20
_HEAD: Final = 4096
_CHUNK: Final = 1 << 20
_MAX_CONFIGURATION: Final = 4 << 20
_CODE_SUFFIXES: Final = frozenset(
    {".py", ".pyw", ".pyx", ".pyi", ".sh", ".bash", ".js", ".mjs", ".lua", ".ps1", ".bat"}
)
_PROTOBUF: Final = {
    ".onnx": ("onnx", protobuf.ONNX),
    ".model": ("sentencepiece", protobuf.SENTENCEPIECE),
    ".spm": ("sentencepiece", protobuf.SENTENCEPIECE),
}
# An array of Python objects is a pickle with a header.
_NUMPY_OBJECTS: Final = re.compile(rb"'[|<>=]?O[0-9]*'")
_MAGICS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF87a", "image"),
    (b"GIF89a", "image"),
    (b"%PDF-", "pdf"),
    (b"\x93NUMPY", "numpy"),
    (b"PAR1", "parquet"),
    (b"\x7fELF", EXECUTABLE),
    (b"MZ", EXECUTABLE),
    (b"\x00asm", EXECUTABLE),
    (b"\xca\xfe\xba\xbe", EXECUTABLE),
    (b"\xfe\xed\xfa", EXECUTABLE),
    (b"\xce\xfa\xed\xfe", EXECUTABLE),
    (b"\xcf\xfa\xed\xfe", EXECUTABLE),
    (b"\x89HDF\r\n", "hdf5"),
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_CONFIGURATION: Final = re.compile(r"(?:.*/)?[a-z_]*config[a-z_]*\.json")


def claim_of(path: str) -> str:
    """Return all of a path that `observe` reads: files of one content and claim look alike."""
    name = path.lower()
    if _CONFIGURATION.fullmatch(name):
        return "configuration"
    suffix = _suffix(name)
    known = suffix in _CODE_SUFFIXES or suffix in _PROTOBUF or suffix in {".safetensors", ".gguf"}
    return suffix if known else ""


def _suffix(name: str) -> str:
    return name[name.rfind(".") :] if "." in name else ""


@dataclass(frozen=True)
class _Look:
    """An open file, what it is called in lower case, and how much time it may take."""

    name: str
    stream: BinaryIO
    head: bytes
    size: int
    deep: bool


def observe(path: str, file: Path, *, deep: bool) -> Observation:
    """Look at the content of a file that is called `path` in its repository.

    Without `deep` it takes milliseconds, and the observation may be incomplete. Hostile content
    costs bounded time and memory; an unreadable file raises OSError.
    """
    with file.open("rb") as stream:
        head, size = stream.read(_HEAD), os.fstat(stream.fileno()).st_size
        # Most files are small, and there may be a hundred thousand: what was read is all of it.
        whole = io.BytesIO(head) if size <= len(head) else stream
        return _told(_Look(path.lower(), whole, head, size, deep))


def _told(look: _Look) -> Observation:
    for tell in (_safetensors, _gguf, _archive, _pickle, _marked):
        look.stream.seek(0)
        if found := tell(look):
            break
    else:
        look.stream.seek(0)
        found = _unmarked(look)
    if found.format not in {ARCHIVE, PICKLE} and archives.ends_as_zip(look.stream, look.size):
        return Observation(
            ARCHIVE, advice=(f"it begins as {found.format} and ends as zip",), dangerous=True
        )
    return found


def _safetensors(look: _Look) -> Observation | None:
    claimed = look.name.endswith(".safetensors")
    if not claimed and look.head[8:9] != b"{":
        return None
    try:
        read_header(look.stream, look.size)
    except FormatError as error:
        return Observation("safetensors", problem=str(error)) if claimed else None
    return Observation("safetensors")


def _gguf(look: _Look) -> Observation | None:
    if not look.name.endswith(".gguf") and not look.head.startswith(gguf.MAGIC):
        return None
    try:
        gguf.check_header(look.stream, look.size)
    except FormatError as error:
        return Observation("gguf", problem=str(error))
    return Observation("gguf")


def _archive(look: _Look) -> Observation | None:
    kind = archives.kind_of(look.head)
    if not kind:
        return None
    if kind != "zip":
        return Observation(ARCHIVE, advice=(f"{kind}, not looked into",))
    pickled, advice, dangerous = archives.look_into_zip(look.stream, look.size, deep=look.deep)
    return Observation(
        PICKLE if pickled else ARCHIVE,
        advice=tuple(advice),
        dangerous=dangerous,
        complete=look.deep,
    )


def _pickle(look: _Look) -> Observation | None:
    """Tell pickles that say so in their first two bytes."""
    if look.head[:1] != b"\x80" or look.head[1:2] > b"\x05":
        return None
    return _walked(look)


def _walked(look: _Look) -> Observation:
    if not look.deep:
        return Observation(PICKLE, complete=False)
    look.stream.seek(0)
    found = pickles.walk(look.stream.read(pickles.MAX_READ))
    advice = [f"imports {name}" for name in found.suspicious[:20]]
    if found.why_ended:
        advice.append(f"the walk through it ended early: {found.why_ended}")
    if look.size > pickles.MAX_READ:
        advice.append(f"only its first {pickles.MAX_READ} bytes were read")
    return Observation(PICKLE, advice=tuple(advice), dangerous=bool(found.dangerous))


def _marked(look: _Look) -> Observation | None:
    for magic, form in _MAGICS:
        if look.head.startswith(magic):
            pickled = form == "numpy" and _NUMPY_OBJECTS.search(look.head)
            return Observation(PICKLE if pickled else form)
    webp = look.head[:4] == b"RIFF" and look.head[8:12] == b"WEBP"
    return Observation("image") if webp else None


def _unmarked(look: _Look) -> Observation:
    """Tell formats that begin with nothing in particular."""
    suffix = _suffix(look.name)
    form, fields = _PROTOBUF.get(suffix, ("", {}))
    if form and protobuf.fits(look.stream, look.size, fields):
        return Observation(form)
    if look.size > INLINE_SIZE and not look.deep and not _CONTROL.search(look.head):
        return Observation("text", complete=False)
    # The oldest pickles are text, and begin with any of many letters: the opcodes must tell.
    look.stream.seek(0)
    steps = None if look.deep else pickles.INLINE_STEPS
    walked = pickles.walk(look.stream.read(pickles.MAX_READ), steps)
    if walked.cut_short and not look.deep and not walked.runs:
        return Observation("text", complete=False)
    # One that goes on past what is read may come to anything.
    endless = walked.cut_short or (walked.exhausted and look.size > pickles.MAX_READ)
    if walked.runs or endless:
        return _walked(look)
    return _text(look, suffix)


def _text(look: _Look, suffix: str) -> Observation:
    look.stream.seek(0)
    if not _is_text(look.stream):
        return Observation(OTHER)
    if suffix in _CODE_SUFFIXES or look.head.startswith(b"#!"):
        return Observation(CODE)
    return Observation("text", remote_code=_remote_code(look))


def _is_text(stream: BinaryIO) -> bool:
    """Read it all: text has no control characters, and is UTF-8 or the old Latin of a licence."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8, size = True, 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if _CONTROL.search(chunk):
            return False
        try:
            utf8 = utf8 and decoder.decode(chunk) is not None
        except UnicodeDecodeError:
            utf8 = False
    return utf8 or size < 1 << 20


def _remote_code(look: _Look) -> tuple[str, ...]:
    """Return what the `auto_map` of a configuration has a loader import from the repository."""
    if not _CONFIGURATION.fullmatch(look.name) or look.size > _MAX_CONFIGURATION:
        return ()
    look.stream.seek(0)
    try:
        document = json.loads(look.stream.read())
    except (ValueError, RecursionError):
        return ()
    found = document.get("auto_map") if isinstance(document, dict) else None
    if not found:
        return ()
    values = found.values() if isinstance(found, dict) else [found]
    return tuple(str(value)[:100] for value in values)[:20]
