"""The lock: what was asked for, and every artifact pinned by digest, without download addresses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, ValidationError

from holdfast_installer.bundle.digests import Digest, digest_of_bytes
from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.bundle.manifest import Artifact
from holdfast_installer.errors import HoldfastError

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "3.11"  # Debian 12's


class EnvironmentSource(BaseModel):
    """What one Python environment is asked to hold.

    `projects` are distributions of this workspace; `exclude` maps a distribution that must stay
    out to the reason; `index` is asked only for what the configured indexes do not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirements: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    exclude: dict[str, str] = {}
    index: str | None = None


class ModelSource(BaseModel):
    """One model: `source` is "org/name" on the hub, or a folder ("./…", "/…", "~…")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    source: str
    revision: str = "main"


class Sources(BaseModel):
    """Everything a lock is made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str = "bookworm"
    architecture: str = "amd64"
    debian: tuple[str, ...]
    environments: dict[str, EnvironmentSource]
    models: tuple[ModelSource, ...] = ()


class LockedEnvironment(BaseModel):
    """An environment's pins: wheels by digest; `inputs` tells whether they still answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Digest
    wheels: tuple[Digest, ...]
    excluded: dict[str, str] = {}  # by name, with the reason; also what only excluded ones need


class Lock(BaseModel):
    """A bundle, decided but not yet collected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    sources: Sources
    debian: Digest  # of the inputs the packages were resolved from
    environments: dict[str, LockedEnvironment]
    artifacts: tuple[Artifact, ...]

    def sizes(self) -> dict[str, int]:
        """Return every blob once: digest -> bytes."""
        return {artifact.digest: artifact.size for artifact in self.artifacts}

    def write(self, path: Path) -> None:
        """Write the lock whole or not at all, sorted and indented so that changes read well."""
        text = json.dumps(
            self.model_dump(mode="json", exclude_defaults=True) | {"format": 1},
            indent=1,
            sort_keys=True,
        )
        write_atomically(path, text.encode() + b"\n")


def inputs_digest(*inputs: object) -> str:
    """Return a digest that changes when any of the plain JSON values given does."""
    return digest_of_bytes(rfc8785.dumps(list(inputs)))  # type: ignore[arg-type]  # plain JSON


def read(path: Path) -> Lock:
    """Return the lock at `path`, or say what is wrong with it."""
    try:
        return Lock.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise HoldfastError(
            "There is no bundle lock here",
            where=str(path),
            cause=problem.strerror or str(problem),
            next_command=f"holdfast bundle lock --site site.yml -o {path}",
        ) from problem
    except ValidationError as problem:
        raise HoldfastError(
            "The bundle lock cannot be read",
            where=str(path),
            cause=str(problem),
            next_command=f"holdfast bundle lock --site site.yml -o {path}",
        ) from problem
