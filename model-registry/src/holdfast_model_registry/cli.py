"""The command holdfast-model-registry: options, a call, and what people see."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from sqlalchemy.exc import SQLAlchemyError

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry import (
    git_command,
    opening_command,
    replication_command,
    serving,
    storage_command,
    verification_command,
)
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.importing import import_revision
from holdfast_model_registry.manifest import read_revisions
from holdfast_model_registry.review import command as review_command
from holdfast_model_registry.review.states import LOCAL, Actor
from holdfast_model_registry.seed import read_seed
from holdfast_model_registry.service import prepare
from holdfast_model_registry.settings import read_settings
from holdfast_model_registry.signing_key import trusted_keys
from holdfast_model_registry.signing_provenance import Provenance
from holdfast_model_registry.storage import Locations, one_writer, open_storage
from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Ledger

if TYPE_CHECKING:
    from holdfast_model_registry.importing import Imported

_PATH = click.Path(path_type=Path)


@click.group()
@click.version_option(package_name="holdfast-model-registry")
def main() -> None:
    """Keep models and serve them to Hugging Face clients; what one may not read is not there."""


@main.command()
@click.option("--data", type=_PATH, metavar="DIR", help="Blobs, and what has no place of its own.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Where to serve; 127.0.0.1:8101.")
@click.option("--database", metavar="URL", help="Repositories; SQLite in --data if not given.")
@click.option("--trust-database", metavar="URL", help="Users and tokens; SQLite in --data.")
@click.option("--ledger", type=_PATH, metavar="DIR", help="The ledger; `ledger` in --data.")
@click.option("--seed", type=_PATH, metavar="FILE", help="Users, tokens and models to begin with.")
@click.option("--jurisdiction", metavar="NAME", help="Label of what clients make here.")
@click.option("--kinds", metavar="KINDS", help="Of repositories; model,dataset.")
@click.option("--accelerate", type=click.Choice(["nginx"]), help="Let nginx send the bytes.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes; 1.")
@click.option("--policy", type=_PATH, metavar="FILE", help="What models must be; baseline's.")
@click.option("--config", type=_PATH, metavar="FILE", help="YAML with these options as keys.")
def serve(config: Path | None, **options: Any) -> None:  # noqa: ANN401 - checked by Settings
    """Serve until SIGTERM. Needs --data, here or in the configuration file."""
    try:
        settings = read_settings(config, options)
        if settings.seed and not settings.jurisdiction:
            # Run alone it takes uploads, without a further option.
            settings = settings.model_copy(
                update={"jurisdiction": read_seed(settings.seed).jurisdiction}
            )
        policy = read_policy(settings.policy)
        for imported in prepare(settings.locations, settings.seed, policy, settings.signers):
            click.echo(f"{imported.id} at {imported.commit}", err=True)
        serving.serve(settings)
    except (TrustError, SQLAlchemyError) as error:
        _fail(error)


@main.command("import")
@click.option("--data", type=_PATH, required=True, metavar="DIR", help="The registry's folder.")
@click.option("--manifest", type=_PATH, required=True, metavar="FILE", help="A verified bundle's.")
@click.option("--blobs", type=_PATH, required=True, metavar="DIR", help="Holds sha256/ab/abcd…")
@click.option("--model", "models", multiple=True, metavar="ORG/NAME", help="Only these; all.")
@click.option("--team", "teams", multiple=True, metavar="TEAM", help="Who may read; as it was.")
@click.option("--no-team", is_flag=True, help="No team but the one in its name.")
@click.option("--jurisdiction", metavar="NAME", help="The label; as it was.")
@click.option("--classification", metavar="NAME", help="The label; as it was.")
@click.option("--database", default="", metavar="URL", help="As for serve.")
@click.option("--ledger", type=_PATH, metavar="DIR", help="As for serve.")
@click.option("--policy", type=_PATH, metavar="FILE", help="As for serve.")
@click.option("--config", type=_PATH, metavar="FILE", help="As for serve; its signers are known.")
@click.option("--importer", metavar="NAME", help="Whose approval this is; the login.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def import_command(  # noqa: PLR0913, PLR0917 - a command has as many parameters as options
    data: Path,
    manifest: Path,
    blobs: Path,
    models: tuple[str, ...],
    teams: tuple[str, ...],
    jurisdiction: str | None,
    classification: str | None,
    database: str,
    ledger: Path | None,
    policy: Path | None,
    config: Path | None,
    importer: str | None,
    *,
    no_team: bool,
    as_json: bool,
) -> None:
    """Bring in the models of a bundle; prints {"changed", "repositories"} as JSON.

    Each blob is checked before anybody can see it. Doing it again changes nothing. With --team
    just these teams may read beside the one in its name, with --no-team none; a model without both
    labels is read by nobody.
    """
    if no_team and teams:
        raise click.UsageError("give --team or --no-team, not both")
    labels = {"jurisdiction": jurisdiction, "classification": classification}
    given = {name: value for name, value in labels.items() if value}
    locations = Locations(data, database, ledger=ledger)
    imported: list[Imported] = []
    try:
        rules = read_policy(policy)
        signers = read_settings(config, {"data": data}).signers
        revisions = read_revisions(manifest, [RepositoryId.parse(model) for model in models])
        storage = open_storage(locations)
        provenance = Provenance(storage.key, trusted_keys(signers), rules.model_signature)
        with one_writer(locations), Ledger(locations.ledger_folder) as record:
            for revision in revisions:
                imported.append(
                    import_revision(
                        storage,
                        record,
                        revision,
                        lambda sha256: blobs / "sha256" / sha256[:2] / sha256,
                        teams=teams if teams or no_team else None,
                        labels=given,
                        importer=Actor(importer, LOCAL) if importer else None,
                        policy=rules,
                        provenance=provenance,
                        placed=True,
                    )
                )
                if not as_json:
                    _tell(imported[-1])
        storage.close()
    except (TrustError, BadIdentifierError, SQLAlchemyError) as error:
        _fail(error)
    changed = any(each.changed for each in imported)
    document = {"changed": changed, "repositories": [each.as_json() for each in imported]}
    click.echo(json.dumps(document, indent=2))


for _command in (
    storage_command.gc_command,
    storage_command.check_command,
    storage_command.backup_command,
    storage_command.restore_command,
    storage_command.usage_command,
):
    main.add_command(_command)


main.add_command(review_command.model)
main.add_command(verification_command.key)
main.add_command(replication_command.replicate)
main.add_command(git_command.export_command)
review_command.model.add_command(opening_command.access)
for _command in verification_command.OF_MODELS:
    review_command.model.add_command(_command)


def _tell(imported: Imported) -> None:
    verb = "imported" if imported.changed else "unchanged"
    readers = ", ".join(imported.teams) or "no team"
    click.echo(
        f"{verb} {imported.id} at {imported.commit}: {imported.files} files, "
        f"{imported.bytes} bytes, opened to {readers}",
        err=True,
    )
    for label in ("jurisdiction", "classification"):
        if label not in imported.labels:
            click.echo(f"  no {label}: nobody may read it; import again with --{label}", err=True)


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, SQLAlchemyError):
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        error = TrustError(
            "the database cannot be used", cause=cause, next_command="check --database"
        )
    click.echo(f"Error: {error}", err=True)
    sys.exit(1)
