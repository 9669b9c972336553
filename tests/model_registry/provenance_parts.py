"""Revisions published straight into the tables, with their provenance kept."""

from __future__ import annotations

import hashlib
import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import yaml
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast_hub_protocol.blobs import BlobStore
from holdfast_hub_protocol.facts import read_facts
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.metadata import MAIN, MetadataStore
from holdfast_hub_protocol.publishing import publish
from holdfast_hub_protocol.records import NewCommit, NewFile
from holdfast_hub_protocol.schema import open_engine
from holdfast_model_registry.cli import main
from holdfast_model_registry.readers import put_access
from holdfast_model_registry.signing_envelope import TrustedKey
from holdfast_model_registry.signing_key import RegistryKey, open_registry_key
from holdfast_model_registry.signing_provenance import Provenance, SignatureRule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LAB_KEY = ec.generate_private_key(ec.SECP256R1())
LAB = TrustedKey("lab", LAB_KEY.public_key())
BASE = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Shelf:
    """Stores and a key, without a server in front."""

    metadata: MetadataStore
    blobs: BlobStore
    key: RegistryKey
    rule: SignatureRule = "if-present"
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.key, (LAB,), self.rule)

    def store(self, path: str, content: bytes) -> NewFile:
        with self.blobs.receive(len(content), git=True) as incoming:
            incoming.write(content)
            known = incoming.keep()
        large = path.endswith(".safetensors")
        return NewFile(path, known.size, known.sha256, None if large else known.git_oid)

    def publish(  # noqa: PLR0913 - one revision with all that it may have
        self,
        name: str,
        files: Mapping[str, bytes],
        labels: Mapping[str, str] | None = None,
        *,
        kind: str = "model",
        parent: str | None = None,
        visible: Callable[[int], bool] = lambda _: True,
        counts: bool = True,
    ) -> tuple[int, str]:
        """Publish a revision with its provenance; return repository key and commit id."""
        repository = RepositoryId.parse(name, kind)
        number = next(self.numbers)
        stored = tuple(self.store(path, content) for path, content in files.items())
        oid = hashlib.sha1(f"{name}{number}".encode()).hexdigest()
        commit = NewCommit(
            repository=repository,
            oid=oid,
            files=stored,
            title=f"Commit {number}",
            author="ada",
            date=BASE + timedelta(days=number),
            parent_oid=parent,
        )
        examined = self.provenance.examine(stored, self.blobs.path)
        assert self.provenance.refusal(kind, examined) == ""
        with self.metadata.engine.begin() as connection:
            facts = read_facts(stored, self.blobs.path)
            key = publish(connection, commit, facts, refs=[MAIN]).repository_key
            if labels is not None:
                put_access(connection, key, teams=["research"], labels=labels)
            self.provenance.keep(connection, key, oid, examined, visible, counts=counts)
        return key, oid


@contextmanager
def make_shelf(url: str, folder: Path) -> Iterator[Shelf]:
    """Open stores on a database of this address."""
    metadata = MetadataStore(open_engine(url))
    metadata.create_schema()
    blobs = BlobStore(folder / "blobs")
    blobs.create()
    yield Shelf(metadata, blobs, open_registry_key(folder))
    metadata.engine.dispose()


def card(**front: object) -> bytes:
    """Return a model card with this front matter."""
    return f"---\n{yaml.safe_dump(front)}---\n# Card\n".encode()


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return path -> SHA-256."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


@dataclass
class Done:
    """What a command printed, and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path) -> Done:
    """Run the registry's command in this process: its start is not what is tested here."""
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return Done(result.exit_code, result.stdout, result.stderr)
