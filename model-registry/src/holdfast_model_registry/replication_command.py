"""`replicate`: copy repositories from another registry, or from and into a folder to carry."""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.access import UnavailableError
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry.admission.observing import Observer
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.gc import keep_blobs
from holdfast_model_registry.replication import Place, Replicator
from holdfast_model_registry.replication_export import export
from holdfast_model_registry.replication_sources import FolderSource, HubSource
from holdfast_model_registry.review.reviewing import Reviewing
from holdfast_model_registry.review.states import LOCAL, Actor
from holdfast_model_registry.signing_key import read_key_file, trusted_keys
from holdfast_model_registry.signing_provenance import Provenance
from holdfast_model_registry.storage import one_writer, open_storage
from holdfast_model_registry.storage_command import of_a_registry
from holdfast_trust.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holdfast_hub_protocol.records import Repository
    from holdfast_model_registry.replication import Copied
    from holdfast_model_registry.replication_sources import Source
    from holdfast_model_registry.settings import Settings
    from holdfast_model_registry.storage import Storage

_PATH: Final = click.Path(path_type=Path)
_REFUSED: Final = 3


@click.command()
@of_a_registry
@click.option("--from", "origin", metavar="URL|DIR", help="Another registry, or a carried folder.")
@click.option("--to", "target", type=_PATH, metavar="DIR", help="Write a folder to carry.")
@click.option("--token-file", type=_PATH, metavar="FILE", help="A token of the other registry.")
@click.option("--source-key", type=_PATH, metavar="PEM", help="The other registry's public key.")
@click.option("--ca", type=_PATH, metavar="PEM", help="Authority of the other registry's https.")
@click.option("--repo", "repos", multiple=True, metavar="[datasets/]ORG/NAME", help="Only these.")
@click.option("--team", "teams", multiple=True, metavar="TEAM", help="Opened to; as it was.")
@click.option("--jurisdiction", metavar="NAME", help="Where it goes; with --from, the registry's.")
@click.option("--at-most", default="internal", show_default=True, metavar="CLASSIFICATION")
@click.option("--json", "as_json", is_flag=True, help="Say nothing on standard error.")
def replicate(  # noqa: PLR0913 - a command has as many parameters as options
    settings: Settings,
    *,
    origin: str | None,
    target: Path | None,
    token_file: Path | None,
    source_key: Path | None,
    ca: Path | None,
    repos: tuple[str, ...],
    teams: tuple[str, ...],
    jurisdiction: str | None,
    at_most: str,
    as_json: bool,
) -> None:
    """Copy repositories whose labels permit it; prints JSON, ends with 3 where one was refused.

    From another registry only what is missing comes, and an interrupted copy goes on where it
    stopped. Commit ids stay; approvals do not travel: this registry's policy decides anew.
    """
    if (origin is None) == (target is None):
        raise click.UsageError("give --from or --to, and not both")
    place = Place(jurisdiction or settings.jurisdiction, at_most)
    if not place.jurisdiction:
        raise click.UsageError("give --jurisdiction: labels decide by it what may go there")
    storage = open_storage(settings.locations)
    step = (lambda _: None) if as_json or not sys.stderr.isatty() else _Counter()
    copied: list[Copied] = []
    try:
        if target is not None:
            copied = [export(storage, each, target, place, step) for each in _here(storage, repos)]
        elif origin is not None:
            source = _source(origin, token_file, ca)
            with (
                one_writer(settings.locations),
                keep_blobs(settings.locations),
                Ledger(settings.locations.ledger_folder) as ledger,
            ):
                replicator = _replicator(
                    settings, storage, ledger, source, origin, source_key, place, step
                )
                for name in _wanted(repos) or source.repositories():
                    copied.append(replicator.copy(name, teams or None))
                    if not as_json:
                        _tell(copied[-1])
    except (BadIdentifierError, UnavailableError) as error:
        raise RegistryError("it cannot be replicated", cause=str(error)) from error
    finally:
        storage.close()
    document = {
        "changed": any(each.changed for each in copied),
        "repositories": [each.as_json() for each in copied],
    }
    click.echo(json.dumps(document, indent=2))
    if any(each.refused for each in copied):
        sys.exit(_REFUSED)


def _replicator(  # noqa: PLR0913, PLR0917 - a replication is all of this
    settings: Settings,
    storage: Storage,
    ledger: Ledger,
    source: Source,
    origin: str,
    source_key: Path | None,
    place: Place,
    step: Callable[[int], None],
) -> Replicator:
    if source_key is None:
        raise click.UsageError("give --source-key: `holdfast-model-registry key`, over there")
    policy = read_policy(settings.policy)
    return Replicator(
        storage=storage,
        ledger=ledger,
        reviewing=Reviewing(storage, policy, ledger, Observer()),
        provenance=Provenance(storage.key, trusted_keys(settings.signers), policy.model_signature),
        source=source,
        origin=origin,
        trusted=(read_key_file(source_key, "the source"),),
        place=place,
        actor=Actor(pwd.getpwuid(os.getuid()).pw_name, LOCAL),
        partials=settings.locations.data / "replication",
        step=step,
    )


def _source(origin: str, token_file: Path | None, ca: Path | None) -> Source:
    if "://" not in origin:
        return FolderSource(Path(origin))
    if token_file is None:
        raise click.UsageError("give --token-file: a token of a service of the other registry")
    return HubSource(origin, token_file.read_text(encoding="utf-8").strip(), ca)


def _wanted(repos: Iterable[str]) -> list[RepositoryId]:
    return [RepositoryId.parse(name.removeprefix("datasets/"), _kind(name)) for name in repos]


def _here(storage: Storage, repos: Sequence[str]) -> list[Repository]:
    """Return the repositories to write: those named, or all."""
    if not repos:
        return storage.metadata.repositories_by_key(_all_keys(storage))
    found = []
    for name in _wanted(repos):
        repository = storage.metadata.repository(name)
        if repository is None:
            raise RegistryError(
                f"there is no {name.kind} {name} here",
                next_command="holdfast-model-registry model list",
            )
        found.append(repository)
    return found


def _all_keys(storage: Storage) -> list[int]:
    with storage.metadata.engine.connect() as connection:
        table = schema.repositories
        return list(connection.execute(sa.select(table.c.id).order_by(table.c.id)).scalars())


def _kind(name: str) -> str:
    return "dataset" if name.startswith("datasets/") else "model"


def _tell(copied: Copied) -> None:
    what = "unchanged" if not copied.changed else f"{copied.commits} commits, {copied.bytes} bytes"
    click.echo(f"{copied.kind} {copied.id}: {copied.refused or what}", err=True)


class _Counter:
    """Shows on standard error how much came."""

    def __init__(self) -> None:
        self._bytes = 0
        self._shown = 0

    def __call__(self, more: int) -> None:
        """Count bytes; show every 16 MiB."""
        self._bytes += more
        if self._bytes >> 24 != self._shown:
            self._shown = self._bytes >> 24
            click.echo(f"\r{self._bytes / 1e6:,.0f} MB", err=True, nl=False)
