"""Models from the local registry, by the stock client, and checked against the signed manifest."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from holdfast_installer.bundle.digests import digest_of_file
from holdfast_installer.errors import HoldfastError
from holdfast_installer.local.services import LOOPBACK, base_environment

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.bundle.manifest import Artifact
    from holdfast_installer.local.layout import Layout
    from holdfast_installer.local.services import Programs


def pull(
    layout: Layout, programs: Programs, files: list[Artifact], *, port: int, token: str
) -> Path:
    """Return the folder of the revision `files` belong to, pulled first unless it is whole."""
    model, commit = files[0].name, files[0].version
    folder = layout.model_folder(model, commit)
    if folder.is_dir() and not _wrong(folder, files):
        return folder
    partial = folder.with_name(f".{commit}")
    environment = base_environment(layout, "pull") | {
        "HF_ENDPOINT": f"http://{LOOPBACK}:{port}",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": token,
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [
            *(str(programs.vllm / "bin/hf"), "download", model),
            *("--revision", commit, "--local-dir", str(partial), "--quiet"),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HoldfastError(
            f"The model {model} could not be pulled from the local registry",
            where=environment["HF_ENDPOINT"],
            cause=done.stderr.strip()[-1000:],
            next_command=f"look at {layout.logs / 'registry.log'}, then run the same command again",
        )
    if wrong := _wrong(partial, files):
        raise HoldfastError(
            f"The model {model} came out of the registry other than it went in",
            where=str(partial),
            cause=f"not as in the signed manifest: {', '.join(wrong)}",
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def _wrong(folder: Path, files: list[Artifact]) -> list[str]:
    """Return the files that are missing or differ from the manifest."""
    return [
        file.filename
        for file in files
        if not (path := folder / file.filename).is_file() or digest_of_file(path) != file.digest
    ]
