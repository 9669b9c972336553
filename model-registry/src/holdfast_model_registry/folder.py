"""A folder of files as a model revision, with the commit id that git would give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast_hub_protocol.blobs import read_content
from holdfast_hub_protocol.git_objects import commit_id, folder_ids
from holdfast_hub_protocol.records import NewFile
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.manifest import Revision

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_hub_protocol.identifiers import RepositoryId

# All of this as `holdfast bundle lock` has it, so that a folder has one commit id everywhere.
AUTHOR: Final = "Holdfast bundle <bundle@holdfast.invalid>"
MESSAGE: Final = "Collected"
IGNORED: Final = frozenset({".git", ".cache", "__pycache__"})
LARGEST_REGULAR_FILE: Final = 10 << 20
LFS_SUFFIXES: Final = frozenset(
    {
        *(".7z", ".bin", ".ckpt", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model"),
        *(".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl"),
        *(".pt", ".pth", ".rar", ".safetensors", ".tar", ".tflite", ".tgz", ".xz", ".zip", ".zst"),
    }
)


def read_folder(repository: RepositoryId, folder: Path) -> tuple[Revision, dict[str, Path]]:
    """Return the folder as a revision, and where the content of each SHA-256 lies."""
    files: list[NewFile] = []
    sources: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or IGNORED.intersection(name.parts):
            continue
        with path.open("rb") as file:
            content = read_content(file)
        large = path.suffix.lower() in LFS_SUFFIXES or content.size > LARGEST_REGULAR_FILE
        files.append(
            NewFile(
                path=name.as_posix(),
                size=content.size,
                sha256=content.sha256,
                git_oid=None if large else content.git_oid,
            )
        )
        sources[content.sha256] = path
    if not files:
        raise RegistryError(
            f"there is nothing to import as {repository}",
            where=str(folder),
            cause="no file in it" if folder.is_dir() else "no such folder",
        )
    root = folder_ids({file.path: file.oid for file in files})[""]
    commit = commit_id(root, author=AUTHOR, seconds=0, message=MESSAGE)
    return Revision(repository, commit, tuple(files), "local"), sources
