"""The models in a bundle's manifest: one artifact per file, grouped into revisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_hub_protocol.records import NewFile
from holdfast_model_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

Hex40 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class ModelFile(BaseModel):
    """An artifact of kind `model`; fields that are not the registry's business are let be."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["model"]
    name: str
    version: Hex40
    filename: str
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    git_oid: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""
    origin: str = ""

    @property
    def sha256(self) -> str:
        """The digest without its scheme."""
        return self.digest.removeprefix("sha256:")


class Manifest(BaseModel):
    """What the registry reads of a manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1]
    artifacts: tuple[dict[str, Any], ...]  # Any: other kinds have fields of their own


@dataclass(frozen=True)
class Revision:
    """A model at one commit, as the bundle carries it."""

    repository: RepositoryId
    commit: str
    files: tuple[NewFile, ...]
    origin: str


def read_revisions(path: Path, only: Collection[RepositoryId] = ()) -> list[Revision]:
    """Return the models of a manifest in its order, all or `only` some.

    RegistryError says what is wrong with it, or that it lacks one of them.
    """
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
        files = [
            ModelFile.model_validate(artifact)
            for artifact in manifest.artifacts
            if artifact.get("kind") == "model"
        ]
        groups: dict[tuple[RepositoryId, str], list[ModelFile]] = {}
        for file in files:
            groups.setdefault((RepositoryId.parse(file.name), file.version), []).append(file)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValidationError, BadIdentifierError) as error:
        raise _unreadable(path, str(error)) from error
    if missing := set(only) - {repository for repository, _ in groups}:
        raise RegistryError(
            f"the manifest has no model {', '.join(sorted(map(str, missing)))}",
            where=str(path),
            next_command="holdfast bundle show DIR",
        )
    return [
        Revision(
            repository=repository,
            commit=commit,
            files=tuple(
                NewFile(file.filename, file.size, file.sha256, file.git_oid or None)
                for file in group
            ),
            origin=group[0].origin,
        )
        for (repository, commit), group in groups.items()
        if not only or repository in only
    ]


def _unreadable(path: Path, cause: str) -> RegistryError:
    return RegistryError(
        "the manifest cannot be read",
        where=str(path),
        cause=cause,
        next_command="holdfast bundle verify DIR",
    )
