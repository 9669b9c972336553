"""The state of a repository as one registry tells another: its names, labels, refs and commits.

Signed at the moment somebody asks, by the same key as the manifests of its commits; whoever takes a
copy believes nothing else.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.commit_manifest import Hex40, commit_manifests
from holdfast_model_registry.lineage_labels import labels_of
from holdfast_model_registry.signing_envelope import (
    STATEMENT_TYPE,
    EnvelopeError,
    parse_envelope,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_hub_protocol.records import Repository
    from holdfast_model_registry.signing_envelope import TrustedKey
    from holdfast_model_registry.signing_key import RegistryKey

PREDICATE: Final = "https://holdfast.invalid/repository-state/v1"
_REFS: Final = ("refs/heads/", "refs/tags/")

# What another registry signed of commits that came from it.
replicated: Final = sa.Table(
    "replicated_commits",
    schema.metadata,
    sa.Column(
        "commit_id", sa.ForeignKey(schema.commits.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("envelope", sa.Text, nullable=False),
)


class RepositoryState(BaseModel):
    """A repository at a moment; `commits` are all that its refs lead to, parents first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    kind: Literal["model", "dataset"]
    repository: str
    former_names: tuple[str, ...]
    labels: dict[str, str]
    gated: Literal["", "auto", "manual"]
    refs: dict[Annotated[str, Field(pattern=r"^refs/(heads|tags)/.{1,256}$")], Hex40]
    commits: tuple[Hex40, ...]
    at: datetime

    @property
    def name(self) -> RepositoryId:
        """The repository; BadIdentifierError if it cannot be one."""
        return RepositoryId.parse(self.repository, self.kind)


def state_of(connection: sa.Connection, repository: Repository) -> RepositoryState:
    """Return what the database says of a repository now."""
    redirects, commits, refs = schema.redirects, schema.commits, schema.refs
    former = connection.execute(
        sa.select(redirects.c.folded).where(redirects.c.repository_id == repository.key)
    ).scalars()
    heads = connection.execute(
        sa.select(refs.c.name, commits.c.oid)
        .join(commits, commits.c.id == refs.c.commit_id)
        .where(refs.c.repository_id == repository.key)
        .order_by(refs.c.name)
    ).all()
    pointed = {row.name: row.oid for row in heads if row.name.startswith(_REFS)}
    rows = connection.execute(
        sa.select(commits.c.oid, commits.c.parent_oid, commits.c.object)
        # A commit whose manifest is not signed yet is none that another registry can take.
        .join(commit_manifests, commit_manifests.c.commit_id == commits.c.id)
        .where(commits.c.repository_id == repository.key)
    ).all()
    parents = {row.oid: _parents(row.parent_oid, row.object) for row in rows}
    return RepositoryState(
        kind="dataset" if repository.id.kind == "dataset" else "model",
        repository=str(repository.id),
        former_names=tuple(sorted(former)),
        labels=labels_of(connection, [repository.key]).get(repository.key, {}),
        gated=repository.gated,
        refs={name: oid for name, oid in pointed.items() if oid in parents},
        commits=tuple(_parents_first(parents, pointed.values())),
        at=datetime.now(UTC).replace(microsecond=0),
    )


def sign_state(state: RepositoryState, key: RegistryKey) -> str:
    """Return the envelope of a state, as JSON text."""
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": state.repository, "digest": {"gitCommit": oid}}
            for oid in dict.fromkeys(state.refs.values())
        ],
        "predicateType": PREDICATE,
        "predicate": state.model_dump(mode="json"),
    }
    return json.dumps(sign(statement, key.private))


def verify_state(content: bytes, trusted: Sequence[TrustedKey]) -> RepositoryState:
    """Return the state that a known registry signed; EnvelopeError says why there is none."""
    envelope = parse_envelope(content)
    if envelope.signer(trusted) is None:
        known = ", ".join(each.name for each in trusted) or "none"
        raise EnvelopeError(f"not signed by a known registry; known: {known}")
    try:
        return RepositoryState.model_validate(envelope.statement(PREDICATE).get("predicate"))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EnvelopeError(f"repository state: {where}: {first['msg']}") from error


def _parents(first: str | None, git_object: bytes | None) -> tuple[str, ...]:
    """Return all parents of a commit: of a merge git's own text has more than the first."""
    if git_object is None:
        return () if first is None else (first,)
    header = git_object.partition(b"\n\n")[0].decode("utf-8", "replace")
    return tuple(
        line.removeprefix("parent ") for line in header.splitlines() if line.startswith("parent ")
    )


def _parents_first(parents: dict[str, tuple[str, ...]], heads: Any) -> list[str]:  # noqa: ANN401 - any iterable of ids
    ordered: dict[str, None] = {}
    waiting = [head for head in heads if head in parents]
    entered: set[str] = set()
    while waiting:
        oid = waiting[-1]
        missing = [each for each in parents[oid] if each in parents and each not in ordered]
        if missing and oid not in entered:
            entered.add(oid)  # asked once only: a circle of ids cannot hold us up
            waiting += missing
            continue
        ordered.setdefault(oid)
        waiting.pop()
    return list(ordered)
