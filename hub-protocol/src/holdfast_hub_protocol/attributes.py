"""The .gitattributes of a revision: what git clients need to know of its large files."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.changes import file_of
from holdfast_hub_protocol.gitignore import MAX_LINES, MAX_SIZE, LargeFiles
from holdfast_hub_protocol.records import NewFile

if TYPE_CHECKING:
    from holdfast_hub_protocol.blob_storage import BlobStorage
    from holdfast_hub_protocol.changes import Changes
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit

NAME: Final = ".gitattributes"
# What models and data sets are made of, and no diff can show.
_SUFFIXES: Final = (
    *("7z", "arrow", "avro", "bin", "bz2", "ckpt", "ftz", "gguf", "gz", "h5", "joblib"),
    *("lz4", "mds", "mlmodel", "model", "msgpack", "npy", "npz", "onnx", "ot", "parquet"),
    *("pb", "pickle", "pkl", "pt", "pth", "rar", "safetensors", "tar", "tflite", "tgz"),
    *("wasm", "xz", "zip", "zst"),
)
_NAMES: Final = ("saved_model/**/*", "*tfevents*")
_LFS: Final = "filter=lfs diff=lfs merge=lfs -text"
_SPECIAL: Final = re.compile(r"([\\*?\[\]!#\"])")


def default_attributes() -> str:
    """Return what a new repository begins with."""
    patterns = [*(f"*.{suffix}" for suffix in _SUFFIXES), *_NAMES]
    return "".join(f"{pattern} {_LFS}\n" for pattern in patterns)


def attributes_of(metadata: MetadataStore, blobs: BlobStorage, commit: Commit) -> str | None:
    """Return the file of a revision; None where there is none that can be read."""
    entry = metadata.entry(commit, NAME)
    return None if entry is None else _text(blobs, file_of(entry))


def with_large_files_named(
    metadata: MetadataStore, blobs: BlobStorage, changes: Changes
) -> Changes:
    """Return the changes with a .gitattributes that names every large file that is put.

    Without its name there, git clients would take a file's pointer for its content. Where there
    is no such file, none is made: whoever has taken it away does not use git.
    """
    if NAME in changes.removed or all(file.git_oid for file in changes.put.values()):
        return changes
    if NAME in changes.put:
        text = _text(blobs, changes.put[NAME])
    else:
        text = None if changes.base is None else attributes_of(metadata, blobs, changes.base)
    if text is None:
        return changes
    large = LargeFiles(text)
    unnamed = sorted(
        path for path, file in changes.put.items() if not file.git_oid and path not in large
    )
    if not unnamed or text.count("\n") + len(unnamed) > MAX_LINES:
        return changes
    lines = [f"{_pattern(path)} {_LFS}\n" for path in unnamed]
    content = (text + "\n" * (not text.endswith("\n") and text != "") + "".join(lines)).encode()
    with blobs.receive(len(content), git=True) as incoming:
        incoming.write(content)
        kept = incoming.keep()
    named = NewFile(NAME, kept.size, kept.sha256, kept.git_oid)
    return replace(changes, put=changes.put | {NAME: named})


def _text(blobs: BlobStorage, file: NewFile | None) -> str | None:
    if file is None or file.git_oid is None or file.size > MAX_SIZE:
        return None
    with blobs.open(file.sha256) as content:
        return content.read().decode(errors="replace")


def _pattern(path: str) -> str:
    """Return the pattern of just this path; of the root, so that no other folder's is meant."""
    return "/" + _SPECIAL.sub(r"\\\1", path).replace(" ", "[[:space:]]")
