"""`model access`: who reads a repository beside its owner, and its labels."""

from __future__ import annotations

import getpass
import json
import os
from typing import TYPE_CHECKING, Final

import click

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.lineage_labels import LABELS
from holdfast_model_registry.opening import describe, open_to
from holdfast_model_registry.readers import NOBODY, read_access
from holdfast_model_registry.storage import open_storage
from holdfast_model_registry.storage_command import of_a_registry
from holdfast_trust.ledger import Ledger

if TYPE_CHECKING:
    from holdfast_hub_protocol.records import Repository
    from holdfast_model_registry.settings import Settings
    from holdfast_model_registry.storage import Storage

_ACTOR: Final = "HOLDFAST_TRUST_ACTOR"  # who the installer says sits at the other end of SSH


@click.command()
@of_a_registry
@click.argument("name", metavar="ORG/NAME")
@click.option("--dataset", is_flag=True, help="A data set, not a model.")
@click.option(
    "--team",
    "teams",
    multiple=True,
    metavar="TEAM",
    help="Just these read it, beside the team in its name; may be repeated.",
)
@click.option("--no-team", is_flag=True, help="No team but the one in its name reads it.")
@click.option("--jurisdiction", metavar="NAME", help="Label it so.")
@click.option("--classification", metavar="NAME", help="Label it so.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def access(  # noqa: PLR0913 - a command has as many parameters as options
    settings: Settings,
    *,
    name: str,
    dataset: bool,
    teams: tuple[str, ...],
    no_team: bool,
    jurisdiction: str | None,
    classification: str | None,
    as_json: bool,
) -> None:
    """Show who reads a repository and its labels; with options, change them.

    Over HTTP its admins can do the same, but for labels that are less strict.
    """
    if no_team and teams:
        raise click.UsageError("give --team or --no-team, not both")
    asked = {"jurisdiction": jurisdiction, "classification": classification}
    labels = {label: value for label, value in asked.items() if value}
    storage = open_storage(settings.locations)
    try:
        repository = _find(storage, name, "dataset" if dataset else "model")
        changed = False
        if teams or no_team or labels:
            changed = _change(
                settings, storage, repository, teams if teams or no_team else None, labels
            )
        engine = storage.metadata.engine
        held = read_access(engine, [repository.key]).get(repository.key, NOBODY)
    finally:
        storage.close()
    document = {"changed": changed, **describe(repository, held)}
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(f"{name}: owned by {repository.id.namespace}, {_seen(repository)}")
    click.echo(f"  opened to: {', '.join(held.teams) or 'no other team'}")
    for label in LABELS:
        click.echo(f"  {label}: {held.labels.get(label) or 'none, so nobody reads it'}")


def _find(storage: Storage, name: str, kind: str) -> Repository:
    try:
        repository = storage.metadata.repository(RepositoryId.parse(name, kind))
    except BadIdentifierError as error:
        raise RegistryError(f"{name!r} is no repository", cause=str(error)) from error
    if repository is None:
        raise RegistryError(f"there is no {kind} {name}", next_command="holdfast model list")
    return repository


def _change(
    settings: Settings,
    storage: Storage,
    repository: Repository,
    teams: tuple[str, ...] | None,
    labels: dict[str, str],
) -> bool:
    with (
        Ledger(settings.locations.ledger_folder) as ledger,
        storage.metadata.engine.begin() as connection,
    ):
        held, changed = open_to(connection, repository.key, teams=teams, labels=labels)
        if changed:
            # Last before the commit: an event too many after a crash, never one too few.
            ledger.append(
                {
                    "action": "model.access",
                    "actor": os.environ.get(_ACTOR) or getpass.getuser(),
                    "actor_kind": "local",
                    repository.id.kind: str(repository.id),
                    "teams": list(held.teams),
                    "labels": dict(held.labels),
                }
            )
    return changed


def _seen(repository: Repository) -> str:
    seen = "private" if repository.private else "not private"
    return f"{seen}, gated ({repository.gated})" if repository.gated else seen
