"""The command export-git: a repository as git has it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from holdfast_hub_protocol.git_export import export_git
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.gc import keep_blobs
from holdfast_model_registry.storage import open_storage
from holdfast_model_registry.storage_command import of_a_registry, operator
from holdfast_trust.ledger import Ledger

if TYPE_CHECKING:
    from holdfast_model_registry.settings import Settings

_PATH: Final = click.Path(path_type=Path)
_COMMAND: Final = "holdfast-model-registry export-git REPOSITORY FOLDER"


@click.command("export-git")
@of_a_registry
@click.option("--kind", type=click.Choice(["model", "dataset"]), default="model", help="model.")
@click.option("--no-lfs", is_flag=True, help="Pointers only, no content of large files.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
@click.argument("repository")
@click.argument("folder", type=_PATH)
def export_command(  # noqa: PLR0913 - as many as options
    settings: Settings, *, kind: str, no_lfs: bool, as_json: bool, repository: str, folder: Path
) -> None:
    """Write a REPOSITORY (ORG/NAME) into a new FOLDER as a bare one of git; prints JSON.

    With branches, tags, pull requests and history, and its large files where `git lfs` looks.
    """
    try:
        name = RepositoryId.parse(repository, kind)
    except BadIdentifierError as error:
        raise RegistryError(
            f"{repository!r} is no repository's name", cause=str(error), next_command=_COMMAND
        ) from error
    if folder.exists():
        raise RegistryError("the folder is there already", where=str(folder), next_command=_COMMAND)
    locations = settings.locations
    storage = open_storage(locations)
    with keep_blobs(locations), Ledger(locations.ledger_folder) as ledger:
        found = storage.metadata.repository(name)
        if found is None:
            raise RegistryError(
                f"there is no {kind} {name}",
                where=str(locations.data),
                next_command="holdfast-model-registry model list",
            )
        ledger.append(
            {"action": "model.export", "actor": operator(), kind: str(found.id), "format": "git"}
        )
        exported = export_git(storage.metadata, storage.blobs, found, folder, lfs=not no_lfs)
    storage.close()
    if not as_json:
        click.echo(
            f"exported {found.id}: {exported.objects} objects, {exported.lfs_files} large files; "
            f"git clone {folder}",
            err=True,
        )
    click.echo(json.dumps({"id": str(found.id), "folder": str(folder), **asdict(exported)}))
