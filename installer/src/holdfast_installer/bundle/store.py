"""The content-addressed cache of this machine: each blob fetched once, checked as it enters."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, cast

from holdfast_installer import paths
from holdfast_installer.bundle.digests import blob_path, digest_of_file, hex_of
from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path


class Store:
    """Blobs, partial downloads and remembered facts under one cache folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or paths.cache_dir()
        self.blobs = self.folder / "blobs"
        self.partials = self.folder / "partial"
        own_only = folder is not None
        self._stores = [self.blobs] if own_only else paths.blob_stores()

    def find(self, digest: str, size: int | None = None) -> Path | None:
        """Return a blob of that name and size, or None; its content is checked when it is used."""
        for blobs in self._stores:
            path = blob_path(blobs, digest)
            if path.is_file() and (size is None or path.stat().st_size == size):
                return path
        return None

    def partial(self, digest: str) -> Path:
        """Return where a download of the blob grows; what is there already is kept."""
        self.partials.mkdir(parents=True, exist_ok=True)
        return self.partials / hex_of(digest)

    def enter(self, file: Path, digest: str) -> Path:
        """Move a complete `file` into the cache if it is what `digest` says, else drop it."""
        found = digest_of_file(file)
        if found != digest:
            file.unlink()
            raise HoldfastError(
                "A download is not what the lock says",
                where=file.name,
                cause=f"expected {digest}, received {found}",
                next_command="run the same command again; if it repeats, the source has changed: "
                "holdfast bundle lock --upgrade",
            )
        with file.open("rb") as content:
            os.fsync(content.fileno())
        file.chmod(0o444)  # linked into bundles: one write would change them all
        final = blob_path(self.blobs, digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        file.replace(final)
        return final

    def enter_copy(self, file: Path) -> tuple[str, int]:
        """Copy a local file into the cache; return its digest and size."""
        self.partials.mkdir(parents=True, exist_ok=True)
        copy = self.partials / f"copy-{os.getpid()}-{file.name}"
        shutil.copyfile(file, copy)
        digest = digest_of_file(copy)
        size = copy.stat().st_size
        if self.find(digest, size):
            copy.unlink()
        else:
            self.enter(copy, digest)
        return digest, size

    def enter_bytes(self, content: bytes, digest: str) -> Path:
        """Put generated content into the cache."""
        if found := self.find(digest, len(content)):
            return found
        partial = self.partial(digest)
        write_atomically(partial, content)
        return self.enter(partial, digest)

    def drop(self, digest: str) -> None:
        """Forget a blob that turned out to be damaged."""
        blob_path(self.blobs, digest).unlink(missing_ok=True)

    def remember(self, subject: str, digest: str, fact: object) -> None:
        """Keep a fact about a blob (its address, its control fields); losing it costs time only."""
        write_atomically(self._fact(subject, digest), json.dumps(fact).encode())

    def recall(self, subject: str, digest: str) -> object | None:
        """Return a remembered fact, or None."""
        try:
            return cast("object", json.loads(self._fact(subject, digest).read_bytes()))
        except (OSError, ValueError):
            return None

    def _fact(self, subject: str, digest: str) -> Path:
        name = hex_of(digest)
        return self.folder / subject / name[:2] / f"{name}.json"
