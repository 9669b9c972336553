"""`model verify`, `mlbom`, `sign` and `receipt`: where a revision comes from, on one screen."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_model_registry import mlbom
from holdfast_model_registry.admission.policy import read_policy
from holdfast_model_registry.errors import RegistryError
from holdfast_model_registry.folder import read_folder
from holdfast_model_registry.lineage_receipt import (
    RECEIPT_FILE,
    Made,
    Training,
    now,
    write_receipt,
)
from holdfast_model_registry.signing import SIGNATURE_FILE, sign_files
from holdfast_model_registry.signing_envelope import KeyFileError, key_pem, read_private_key
from holdfast_model_registry.signing_key import read_key_file
from holdfast_model_registry.storage import open_storage
from holdfast_model_registry.storage_command import fail, of_a_registry
from holdfast_model_registry.verification import Verifier
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.settings import Settings
    from holdfast_model_registry.signing_envelope import PrivateKey
    from holdfast_model_registry.storage import Storage
    from holdfast_model_registry.verification import Chain

_REFUSED: Final = 3
_PATH: Final = click.Path(path_type=Path)
_WIDTH: Final = 16
_SHOWN: Final = {"pass": "green", "fail": "red", "attested": None, "not-applicable": None}
_kind = click.option("--dataset", is_flag=True, help="A data set, not a model.")


@click.command()
@of_a_registry
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@_kind
@click.option("--key", "pem", type=_PATH, metavar="PEM", help="The registry's public key; its own.")
@click.option("--json", "as_json", is_flag=True, help="Print the chain as JSON.")
def verify(
    settings: Settings, *, revision: str, dataset: bool, pem: Path | None, as_json: bool
) -> None:
    """Prove the whole chain of a revision, offline; ends with 3 if a link does not hold.

    Who brought it in, signature and signer, scan and approvals, lineage and labels; every file is
    read and measured against the manifest that was signed when it was published.
    """
    with _opened(settings, revision, dataset=dataset) as (storage, repository, commit):
        trusted = storage.key.trusted if pem is None else read_key_file(pem, "the registry")
        verifier = Verifier(
            storage.metadata,
            storage.blobs,
            (trusted,),
            read_policy(settings.policy).model_signature,
        )
        size = sum(entry.size for entry in storage.metadata.files(commit))
        hidden = as_json or not sys.stderr.isatty()
        with click.progressbar(length=size, file=sys.stderr, hidden=hidden) as bar:
            chain = verifier.verify(repository, commit, step=bar.update)
    if as_json:
        click.echo(json.dumps(chain.as_json(), indent=2))
    else:
        _show(chain)
    if chain.findings:
        sys.exit(_REFUSED)


@click.command("mlbom")
@of_a_registry
@click.argument("revision", metavar="ORG/NAME[@REVISION]")
@_kind
def mlbom_command(settings: Settings, *, revision: str, dataset: bool) -> None:
    """Print the bill of materials of a revision: CycloneDX 1.6, JSON."""
    with _opened(settings, revision, dataset=dataset) as (storage, repository, commit):
        verifier = Verifier(storage.metadata, storage.blobs, (storage.key.trusted,))
        chain = verifier.verify(repository, commit, measure=False)
        files = storage.metadata.files(commit)
        click.echo(json.dumps(mlbom.render(chain, commit, files), indent=1, ensure_ascii=False))


@click.command()
@click.argument("folder", type=_PATH)
@click.option("--key", "pem", type=_PATH, required=True, help="Private key: P-256, P-384, P-521.")
@click.option("--name", metavar="ORG/NAME", help="What it is called; the folder's name.")
def sign(folder: Path, pem: Path, name: str | None) -> None:
    """Sign the files of a folder as OpenSSF model-signing does; writes model.sig into it.

    Any signature that is there is replaced; push or import the folder afterwards.
    """
    try:
        files = _digests(folder)
        signature = sign_files(files, name or folder.resolve().name, _private(pem))
        (folder / SIGNATURE_FILE).write_bytes(signature)
    except (TrustError, OSError) as error:
        fail(error)
    click.echo(f"signed {len(files.keys() - {SIGNATURE_FILE})} files", err=True)


@click.command()
@click.argument("folder", type=_PATH)
@click.option("--key", "pem", type=_PATH, required=True, help="Private key of who ran it.")
@click.option("--base-model", "bases", multiple=True, metavar="ORG/NAME@REVISION")
@click.option("--dataset", "datasets", multiple=True, metavar="ORG/NAME@REVISION")
@click.option("--job", default="", metavar="TEXT", help="What ran.")
def receipt(
    folder: Path, pem: Path, bases: tuple[str, ...], datasets: tuple[str, ...], job: str
) -> None:
    """Sign what a model was made from; writes training.receipt.json into its folder.

    Sign the model afterwards: its signature covers the receipt.
    """
    try:
        files = {
            path: sha256
            for path, sha256 in _digests(folder).items()
            if path not in {SIGNATURE_FILE, RECEIPT_FILE}
        }
        training = Training(
            base_models=tuple(map(_made, bases)),
            datasets=tuple(map(_made, datasets)),
            job=job,
            finished=now(),
        )
        (folder / RECEIPT_FILE).write_bytes(write_receipt(files, training, _private(pem)))
    except (TrustError, OSError) as error:
        fail(error)
    click.echo(f"recorded {len(bases)} base models and {len(datasets)} data sets", err=True)


@click.command()
@of_a_registry
def key(settings: Settings) -> None:
    """Print the registry's public key: hosts and other registries verify its manifests with it."""
    storage = open_storage(settings.locations)
    click.echo(key_pem(storage.key.trusted.key), nl=False)
    storage.close()


OF_MODELS: Final = (verify, mlbom_command, sign, receipt)


@contextmanager
def _opened(
    settings: Settings, revision: str, *, dataset: bool
) -> Iterator[tuple[Storage, Repository, Commit]]:
    name, _, wanted = revision.partition("@")
    storage = open_storage(settings.locations)
    try:
        repository = storage.metadata.repository(
            RepositoryId.parse(name, "dataset" if dataset else "model")
        )
        commit = storage.metadata.commit(repository, wanted or "main") if repository else None
        if repository is None or commit is None:
            raise RegistryError(
                f"there is no {revision} here",
                where=str(settings.data),
                next_command="holdfast-model-registry model list",
            )
        yield storage, repository, commit
    except BadIdentifierError as error:
        raise RegistryError(f"not a revision: {revision}", cause=str(error)) from error
    finally:
        storage.close()


def _show(chain: Chain) -> None:
    refs = ", ".join(ref.removeprefix("refs/heads/") for ref in chain.refs)
    lines = [f"{chain.model}@{chain.commit}" + (f" ({refs})" if refs else "")]
    for link in chain.links:
        verdict = click.style(f"{link.verdict:<{_WIDTH}}", fg=_SHOWN.get(link.verdict, "yellow"))
        lines.append(f"  {link.name:<10}{verdict}{link.detail}")
        if link.fix and link in chain.findings:
            lines.append(f"  {'':<{10 + _WIDTH}}next: {link.fix}")
    held = len(chain.links) - len(chain.findings)
    lines.append(
        f"{held} of {len(chain.links)} links hold; nothing was asked outside this registry"
    )
    click.echo("\n".join(lines), err=True)


def _digests(folder: Path) -> dict[str, str]:
    revision, _ = read_folder(RepositoryId.parse("a/folder"), folder)
    return {file.path: file.sha256 for file in revision.files}


def _private(path: Path) -> PrivateKey:
    try:
        return read_private_key(path.read_bytes())
    except KeyFileError as error:
        raise RegistryError(
            "the key cannot be used",
            where=str(path),
            cause=str(error),
            next_command="openssl ecparam -name prime256v1 -genkey -noout -out signer.pem",
        ) from error


def _made(text: str) -> Made:
    name, _, revision = text.partition("@")
    return Made(id=name, revision=revision)
