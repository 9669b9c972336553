"""Models: a snapshot on the hub pinned to a commit, or a folder with the commit git would name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import yaml
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils.tqdm import disable_progress_bars

from holdfast_installer.bundle.digests import git_blob_of_file, git_object_name, hex_of
from holdfast_installer.bundle.manifest import Artifact
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast_installer.bundle.lockfile import ModelSource
    from holdfast_installer.bundle.store import Store

# What the hub keeps in LFS by default; a commit names the pointer of such a file, not its content.
_LFS_SUFFIXES = frozenset(
    [
        ".7z",
        ".bin",
        ".ckpt",
        ".gguf",
        ".gz",
        ".h5",
        ".joblib",
        ".mlmodel",
        ".model",
        ".msgpack",
        ".npy",
        ".npz",
        ".onnx",
        ".ot",
        ".parquet",
        ".pb",
        ".pickle",
        ".pkl",
        ".pt",
        ".pth",
        ".rar",
        ".safetensors",
        ".tar",
        ".tflite",
        ".tgz",
        ".xz",
        ".zip",
        ".zst",
    ]
)
_LFS_SIZE = 10 * 1024 * 1024  # bytes: the hub refuses larger regular files
_IGNORED = frozenset({".git", ".cache", "__pycache__"})
_SIGNATURE = "Holdfast bundle <bundle@holdfast.invalid> 0 +0000"


@dataclass(frozen=True)
class _File:
    name: str
    digest: str
    size: int
    git_oid: str
    large: bool


def lock_model(source: ModelSource, store: Store) -> list[Artifact]:
    """Pin one model: every file's digest; regular files are fetched, LFS files only named."""
    if source.source.startswith((".", "/", "~")):
        return _lock_folder(source, Path(source.source).expanduser(), store)
    return _lock_snapshot(source, store)


def fetch_model_file(artifact: Artifact, store: Store) -> None:
    """Fetch one file of a hub snapshot into the cache; an interrupted download goes on."""
    disable_progress_bars()  # the build has its own
    repository, _, commit = artifact.origin.removeprefix("hub:").rpartition("@")
    growing = store.partials / f"hub-{hex_of(artifact.digest)}"
    try:
        file = hf_hub_download(repository, artifact.filename, revision=commit, local_dir=growing)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
        raise _hub_error(repository, problem) from problem
    store.enter(Path(file), artifact.digest)
    shutil.rmtree(growing, ignore_errors=True)


def _lock_folder(source: ModelSource, folder: Path, store: Store) -> list[Artifact]:
    if not folder.is_dir():
        raise HoldfastError(
            f"The folder of model {source.id} is not there",
            where=str(folder),
            next_command="correct models[].source in site.yml, or put the model there",
        )
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _IGNORED & {*PurePosixPath(name).parts} or path.is_dir():
            continue
        digest, size = store.enter_copy(path)
        large = path.suffix.lower() in _LFS_SUFFIXES or size > _LFS_SIZE
        oid = _pointer_oid(digest, size) if large else git_blob_of_file(path)
        files.append(_File(name, digest, size, oid, large))
    if not files:
        raise HoldfastError(f"The folder of model {source.id} is empty", where=str(folder))
    return _artifacts(source, files, _commit_name(files), "local", _licence_of_card(folder))


def _lock_snapshot(source: ModelSource, store: Store) -> list[Artifact]:
    disable_progress_bars()
    try:
        info = HfApi().model_info(source.source, revision=source.revision, files_metadata=True)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
        raise _hub_error(source.source, problem) from problem
    commit = str(info.sha)
    files = []
    for sibling in info.siblings or ():
        if sibling.lfs is not None:
            digest, size = f"sha256:{sibling.lfs.sha256}", sibling.lfs.size
            files.append(_File(sibling.rfilename, digest, size, "", large=True))
            continue
        scratch = store.partials / f"hub-{commit}"
        try:
            path = Path(
                hf_hub_download(
                    source.source, sibling.rfilename, revision=commit, local_dir=scratch
                )
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as problem:
            raise _hub_error(source.source, problem) from problem
        oid = git_blob_of_file(path)
        if sibling.blob_id and oid != sibling.blob_id:
            raise HoldfastError(
                "The hub sent a file that is not what its commit names",
                where=f"{source.source}@{commit}/{sibling.rfilename}",
                cause=f"expected git blob {sibling.blob_id}, received {oid}",
            )
        digest, size = store.enter_copy(path)
        files.append(_File(sibling.rfilename, digest, size, oid, large=False))
        shutil.rmtree(scratch, ignore_errors=True)
    licence = str(getattr(info.card_data, "license", None) or "not stated")
    return _artifacts(source, files, commit, f"hub:{source.source}@{commit}", licence)


def _artifacts(
    source: ModelSource, files: list[_File], commit: str, origin: str, licence: str
) -> list[Artifact]:
    return [
        Artifact(
            kind="model",
            name=source.id,
            version=commit,
            filename=file.name,
            digest=file.digest,
            size=file.size,
            origin=origin,
            licence=licence,
            git_oid="" if file.large else file.git_oid,
        )
        for file in files
    ]


def _pointer_oid(digest: str, size: int) -> str:
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hex_of(digest)}\nsize {size}\n"
    )
    return git_object_name("blob", pointer.encode())


def _commit_name(files: list[_File]) -> str:
    """Return the name of the git commit that holds just these files, by us, at time zero."""
    tree = _tree_name([(PurePosixPath(file.name).parts, file.git_oid) for file in files])
    commit = f"tree {tree}\nauthor {_SIGNATURE}\ncommitter {_SIGNATURE}\n\nCollected\n"
    return git_object_name("commit", commit.encode())


def _tree_name(entries: list[tuple[tuple[str, ...], str]]) -> str:
    folders: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    lines: list[tuple[bytes, bytes]] = []
    for parts, oid in entries:
        if len(parts) > 1:
            folders.setdefault(parts[0], []).append((parts[1:], oid))
        else:
            lines.append(
                (parts[0].encode(), b"100644 " + parts[0].encode() + b"\0" + bytes.fromhex(oid))
            )
    for name, inside in folders.items():
        oid = _tree_name(inside)
        # git sorts a folder as if its name ended in a slash
        lines.append((name.encode() + b"/", b"40000 " + name.encode() + b"\0" + bytes.fromhex(oid)))
    return git_object_name("tree", b"".join(line for _, line in sorted(lines)))


def _licence_of_card(folder: Path) -> str:
    """Return the licence in the front matter of a model card."""
    card = folder / "README.md"
    if not card.is_file():
        return "not stated"
    _, _, rest = card.read_text(encoding="utf-8").partition("---\n")
    front, _, _ = rest.partition("\n---")
    try:
        fields = yaml.safe_load(front)
    except yaml.YAMLError:
        return "not stated"
    return str(fields.get("license") or "not stated") if isinstance(fields, dict) else "not stated"


def _hub_error(repository: str, problem: Exception) -> HoldfastError:
    return HoldfastError(
        "The hub did not hand out the model",
        where=repository,
        cause=str(problem).splitlines()[0],
        next_command="check the id and revision, HF_ENDPOINT, and `hf auth whoami`, then try again",
    )
