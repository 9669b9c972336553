"""The manifest: what a bundle holds, named by digest, in one canonical JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from holdfast_installer.bundle.digests import Digest, digest_of_bytes
from holdfast_installer.errors import EXIT_REFUSED, HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
SBOM = "sbom.cdx.json"
SIGNATURES = "signatures"
BLOBS = "blobs"
NAMESPACE = "holdfast-bundle"  # of the OpenSSH signatures: a key for one purpose is not one for all

Kind = Literal["deb", "wheel", "model", "collection", "docs", "file"]
KINDS: tuple[Kind, ...] = ("deb", "wheel", "model", "collection", "docs", "file")


class Artifact(BaseModel):
    """One thing a bundle carries, for a model one file of it; `size` is in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    version: str = ""
    filename: str
    digest: Digest
    size: int = Field(ge=0)
    origin: str
    licence: str = ""
    architecture: str = ""  # deb
    environments: tuple[str, ...] = ()  # wheel, collection
    git_oid: str = ""  # model: git's name of a regular file; LFS files have none but their digest


class Environment(BaseModel):
    """One Python environment: its hash-pinned requirements file, and what was left out and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirements: Digest
    python: str
    excluded: dict[str, str] = {}

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits that name the environment's folder on a host."""
        return self.requirements.removeprefix("sha256:")[:12]


class Manifest(BaseModel):
    """Everything in a bundle; its canonical bytes are what is signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    release: str
    architecture: str
    environments: dict[str, Environment]
    artifacts: tuple[Artifact, ...]

    @model_validator(mode="after")
    def _one_size_for_one_digest(self) -> Manifest:
        sizes: dict[str, int] = {}
        for artifact in self.artifacts:
            if sizes.setdefault(artifact.digest, artifact.size) != artifact.size:
                msg = f"{artifact.digest} is listed with two sizes"
                raise ValueError(msg)
            parts = artifact.filename.split("/")
            if artifact.filename.startswith("/") or not all(parts) or {".", ".."} & {*parts}:
                msg = f"{artifact.filename!r} is not a relative path"
                raise ValueError(msg)
        for name, environment in self.environments.items():
            if environment.requirements not in sizes:
                msg = f"the requirements of environment {name} are not in the bundle"
                raise ValueError(msg)
        return self

    def canonical(self) -> bytes:
        """Return the RFC 8785 bytes that lie on disk and are signed."""
        return rfc8785.dumps(self.model_dump(mode="json", exclude_defaults=True) | {"format": 1})

    def digest(self) -> str:
        """Return the bundle digest: SHA-256 of the canonical bytes."""
        return digest_of_bytes(self.canonical())

    def sizes(self) -> dict[str, int]:
        """Return every blob once: digest -> bytes."""
        return {artifact.digest: artifact.size for artifact in self.artifacts}

    def of_kind(self, kind: Kind) -> list[Artifact]:
        """Return the artifacts of one kind, in the manifest's order."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]


def parse(raw: bytes, where: Path) -> Manifest:
    """Return the manifest in `raw`, refusing bytes that are not its canonical form."""
    try:
        found = Manifest.model_validate(json.loads(raw))
        canonical = found.canonical()
    except (ValueError, ValidationError, RecursionError) as problem:
        raise HoldfastError(
            "This is not a bundle manifest that this release of holdfast can read",
            where=str(where),
            cause=str(problem),
            next_command="holdfast bundle build --lock bundle.lock -o DIR",
            exit_code=EXIT_REFUSED,
        ) from problem
    if canonical != raw:
        raise HoldfastError(
            "The manifest is not in canonical form: something rewrote it",
            where=str(where),
            next_command="copy the bundle again from where it was built",
            exit_code=EXIT_REFUSED,
        )
    return found


def load(directory: Path) -> Manifest:
    """Return `directory`'s manifest without checking anything it points at; see `verify`."""
    return parse(read(directory), directory / MANIFEST)


def read(directory: Path) -> bytes:
    """Return the bytes of `directory`'s manifest, the ones that were signed."""
    path = directory / MANIFEST
    try:
        return path.read_bytes()
    except OSError as problem:
        raise HoldfastError(
            "No bundle here",
            where=str(path),
            cause=problem.strerror or str(problem),
            next_command="holdfast bundle build --lock bundle.lock -o DIR",
            exit_code=EXIT_REFUSED,
        ) from problem
