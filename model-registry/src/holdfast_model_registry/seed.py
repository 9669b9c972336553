"""The seed file of a registry that runs alone: people and tokens, and folders to serve as models.

jurisdiction: de
models:
  - {id: org/name, path: ./folder, teams: [research],
     labels: {jurisdiction: de, classification: internal}}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.folder import read_folder
from holdfast_model_registry.importing import Imported, import_revision
from holdfast_model_registry.review.states import LOCAL, Actor
from holdfast_trust.seed import Seed, apply

if TYPE_CHECKING:
    from holdfast_model_registry.admission.policy import ModelPolicy
    from holdfast_model_registry.signing_provenance import Provenance
    from holdfast_model_registry.storage import Storage
    from holdfast_trust.ledger import Ledger
    from holdfast_trust.store import TrustStore


class Labels(BaseModel):
    """Both are needed: a model without them is read by nobody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    jurisdiction: Annotated[str, Field(min_length=1)]
    classification: Annotated[str, Field(min_length=1)] = "internal"


class SeedModel(BaseModel):
    """A folder to serve; a relative path starts where the seed file lies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    path: Path
    teams: tuple[str, ...] = ()
    labels: Labels


class RegistrySeed(Seed):
    """A seed file with models, and the label of what clients make where `serve` is not told one."""

    jurisdiction: Annotated[str, Field(min_length=1)] = "local"
    models: tuple[SeedModel, ...] = ()


def read_seed(path: Path) -> RegistrySeed:
    """Read a seed file; RegistryError says which key is wrong. Secrets are never repeated."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return RegistrySeed.model_validate(document)
    except OSError as error:
        raise _mistake(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise _mistake(path, str(error)) from error
    except ValidationError as error:
        problems = (
            f"{'.'.join(str(part) for part in each['loc']) or 'the file'}: {each['msg']}"
            for each in error.errors(include_input=False)
        )
        raise _mistake(path, "; ".join(problems)) from None


def plant(  # noqa: PLR0913, PLR0917 - a registry that runs alone is all of this
    path: Path,
    store: TrustStore,
    storage: Storage,
    ledger: Ledger,
    policy: ModelPolicy | None = None,
    provenance: Provenance | None = None,
) -> list[Imported]:
    """Bring in everything that the file names; doing it again changes nothing."""
    seed = read_seed(path)
    apply(store, seed)
    imported = []
    for model in seed.models:
        try:
            repository = RepositoryId.parse(model.id)
        except BadIdentifierError as error:
            raise _mistake(path, f"models: {error}") from error
        revision, sources = read_folder(repository, path.parent / model.path.expanduser())
        imported.append(
            import_revision(
                storage,
                ledger,
                revision,
                sources.__getitem__,
                teams=model.teams,
                labels=model.labels.model_dump(),
                # The folder is the user's own, and may be edited in place.
                link=False,
                importer=Actor("seed", LOCAL),
                policy=policy,
                provenance=provenance,
            )
        )
    return imported


def _mistake(path: Path, cause: str) -> RegistryError:
    return RegistryError("the seed file cannot be used", where=str(path), cause=cause)
