"""What a revision was made from: base models and data sets, by its card and by signed receipts.

A card says what its author chose to say; a receipt is signed by whoever ran the training. Both name
sources; a source that is known here is resolved to repository and commit, and its labels are
inherited by every repository that was made from it, however far down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_hub_protocol.metadata import MAIN
from holdfast_model_registry.lineage_labels import (
    CONTRADICTION,
    LABELS,
    effective,
    inherited_labels,
    labels_of,
    strictest,
)
from holdfast_model_registry.readers import access, classify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from holdfast_model_registry.lineage_receipt import Training

MAX_SOURCES: Final = 256
_NAME_LENGTH: Final = 200
_HUB_ADDRESS: Final = re.compile(r"https?://[^/]+/(?:(datasets)/)?")

lineage: Final = sa.Table(
    "lineage",
    schema.metadata,
    sa.Column(
        "commit_id", sa.ForeignKey(schema.commits.c.id, ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),  # model: a base model; dataset
    sa.Column("named", sa.Text, nullable=False),  # as the card or receipt has it
    sa.Column("revision", sa.Text, nullable=False),  # as asked for; '' for none
    sa.Column("evidence", sa.String(16), nullable=False),  # card or receipt
    sa.Column("signer", sa.Text, nullable=False),  # of the receipt
    sa.Column("repository_id", sa.ForeignKey(schema.repositories.c.id, ondelete="SET NULL")),
    sa.Column("commit_oid", sa.String(40)),  # what the revision stood for when this was recorded
    # Whether the repository inherits by it: not by what is only proposed in a pull request.
    sa.Column("counts", sa.Boolean, nullable=False),
    # What the source was labelled when it was last seen: it may be deleted, its heirs remain.
    sa.Column("labels", schema.Document),
    sa.Index("lineage_by_repository", "repository_id"),
)


@dataclass(frozen=True)
class Source:
    """One thing that a revision says it was made from."""

    kind: str
    named: str
    revision: str = ""
    evidence: str = "card"
    signer: str = ""

    @property
    def repository(self) -> RepositoryId | None:
        """The repository it may be; None for what no hub's name is, such as a path."""
        try:
            return RepositoryId.parse(_HUB_ADDRESS.sub("", self.named, count=1), self.kind)
        except BadIdentifierError:
            return None


@dataclass(frozen=True)
class Ancestor:
    """A source as it was recorded; without `repository` it is not known here."""

    source: Source
    repository: str
    commit: str
    labels: Mapping[str, str] | None
    key: int | None

    @property
    def hidden(self) -> Ancestor:
        """The same, for whoever may not know that it is here."""
        return Ancestor(self.source, "", "", None, None)

    def as_json(self) -> dict[str, Any]:
        """Return it as commands and pages show it."""
        return {
            "relation": "base_model" if self.source.kind == "model" else "dataset",
            "named": self.source.named,
            "revision": self.source.revision,
            "evidence": self.source.evidence,
            "signer": self.source.signer,
            "repository": self.repository,
            "commit": self.commit,
            "labels": dict(self.labels) if self.labels is not None else None,
        }


def sources_of(
    card: Mapping[str, Any] | None, training: Training | None = None, signer: str = ""
) -> list[Source]:
    """Return what a card's front matter and a verified receipt name, receipts first, each once."""
    found: dict[tuple[str, str, str], Source] = {}
    if training is not None:
        for kind, made in (("model", training.base_models), ("dataset", training.datasets)):
            for each in made:
                source = Source(kind, each.id, each.revision, "receipt", signer)
                found.setdefault((kind, each.id, each.revision), source)
    named = {(kind, name) for kind, name, _ in found}
    for kind, key in (("model", "base_model"), ("dataset", "datasets")):
        for text in _texts(card, key):
            name, _, revision = text.partition("@")
            if (kind, name) not in named:
                found.setdefault((kind, name, revision), Source(kind, name, revision))
    return list(found.values())[:MAX_SOURCES]


def record(  # noqa: PLR0913 - a commit with all that is asked of its sources
    connection: sa.Connection,
    repository_key: int,
    oid: str,
    sources: Sequence[Source],
    visible: Callable[[int], bool] = lambda _: True,
    *,
    counts: bool = True,
) -> str:
    """Keep a new commit's sources and have its repository inherit; return why labels contradict.

    A source that is not `visible` (by repository key) to whoever commits is recorded as one that is
    not known here: no answer tells that it exists. Without `counts` nothing is inherited: a commit
    that is only proposed binds nobody. Doing it again changes nothing.
    """
    commit_key = connection.execute(
        sa.select(schema.commits.c.id).where(
            schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid
        )
    ).scalar_one()
    known = sa.select(sa.func.count()).where(lineage.c.commit_id == commit_key)
    if not connection.execute(known).scalar_one():
        for position, source in enumerate(sources):
            values = _resolved(connection, source, visible)
            connection.execute(
                lineage.insert().values(
                    commit_id=commit_key, position=position, counts=counts, **values
                )
            )
    if not counts:
        return ""
    if sources:
        inherit(connection, repository_key)
    return contradiction(connection, repository_key)


def inherit(connection: sa.Connection, repository_key: int) -> None:
    """Set anew what a repository, and each made from it, inherits: after new sources or labels."""
    for key in [repository_key, *_descendants(connection, repository_key)]:
        labels = _inherited(connection, key)
        table = inherited_labels
        connection.execute(table.delete().where(table.c.repository_id == key))
        if labels:
            connection.execute(table.insert().values(repository_id=key, labels=labels))
        held = labels_of(connection, [key]).get(key, {})
        connection.execute(
            lineage.update().where(lineage.c.repository_id == key).values(labels=held)
        )
        classify(connection, [key])


def contradiction(connection: sa.Connection, repository_key: int) -> str:
    """Return why no label can hold for a repository and what it was made from; '' if one can."""
    row = connection.execute(
        sa.select(access.c.labels, inherited_labels.c.labels.label("inherited"))
        .outerjoin(inherited_labels, inherited_labels.c.repository_id == access.c.repository_id)
        .where(access.c.repository_id == repository_key)
    ).one_or_none()
    if row is None or not row.inherited:
        return ""
    held = effective(row.labels, row.inherited)
    said = [
        f"{kind} {row.labels[kind]!r} and "
        + (f"{kind} {row.inherited[kind]!r}" if row.inherited[kind] else "none, or several")
        for kind in LABELS
        if held.get(kind) == CONTRADICTION and row.labels.get(kind)
    ]
    if not said:
        return ""
    return f"its labels and those of what it was made from contradict each other: {'; '.join(said)}"


def read(connection: sa.Connection, repository_key: int, oid: str) -> list[Ancestor]:
    """Return what a commit was made from, with the labels that its sources have now."""
    repositories = schema.repositories
    rows = connection.execute(
        sa.select(lineage, repositories.c.namespace, repositories.c.name)
        .join(schema.commits, schema.commits.c.id == lineage.c.commit_id)
        .outerjoin(repositories, repositories.c.id == lineage.c.repository_id)
        .where(schema.commits.c.repository_id == repository_key, schema.commits.c.oid == oid)
        .order_by(lineage.c.position)
    ).all()
    now = labels_of(connection, [row.repository_id for row in rows if row.repository_id])
    return [
        Ancestor(
            source=Source(row.kind, row.named, row.revision, row.evidence, row.signer),
            repository=f"{row.namespace}/{row.name}" if row.name else "",
            commit=row.commit_oid or "",
            labels=now.get(row.repository_id, {}) if row.repository_id else row.labels,
            key=row.repository_id,
        )
        for row in rows
    ]


def _resolved(
    connection: sa.Connection, source: Source, visible: Callable[[int], bool]
) -> dict[str, Any]:
    """Return a source's columns: as it was named, and what that is here."""
    found = _resolve(connection, source)
    if found is not None and not visible(found[0]):
        found = None
    key, oid = found or (None, None)
    return {
        "kind": source.kind,
        "named": source.named,
        "revision": source.revision,
        "evidence": source.evidence,
        "signer": source.signer,
        "repository_id": key,
        "commit_oid": oid,
        "labels": None if key is None else labels_of(connection, [key]).get(key, {}),
    }


def _resolve(connection: sa.Connection, source: Source) -> tuple[int, str | None] | None:
    """Return the row of the repository named, and the commit that its revision stands for."""
    name = source.repository
    if name is None:
        return None
    repositories, redirects = schema.repositories, schema.redirects
    key = connection.execute(
        sa.select(repositories.c.id).where(
            repositories.c.kind == name.kind, repositories.c.folded == name.folded
        )
    ).scalar_one_or_none()
    if key is None:
        key = connection.execute(
            sa.select(redirects.c.repository_id).where(
                redirects.c.kind == name.kind, redirects.c.folded == name.folded
            )
        ).scalar_one_or_none()
    if key is None:
        return None
    revision = source.revision
    wanted = [f"refs/heads/{revision}", f"refs/tags/{revision}"] if revision else [MAIN]
    oid = connection.execute(
        sa.select(schema.commits.c.oid)
        .join(schema.refs, schema.refs.c.commit_id == schema.commits.c.id)
        .where(schema.refs.c.repository_id == key, schema.refs.c.name.in_(wanted))
        .limit(1)
    ).scalar_one_or_none()
    if oid is None and revision:
        oid = connection.execute(
            sa.select(schema.commits.c.oid).where(
                schema.commits.c.repository_id == key, schema.commits.c.oid == revision
            )
        ).scalar_one_or_none()
    return key, oid


def _inherited(connection: sa.Connection, repository_key: int) -> dict[str, str]:
    """Return the strictest labels of everything upstream: own labels of each, not inherited ones.

    So a cycle of repositories made from one another holds no label up that nobody gave.
    """
    values: dict[str, list[str]] = {kind: [] for kind in LABELS}
    for labels in _upstream(connection, repository_key):
        for kind in LABELS:
            values[kind].append(labels.get(kind, CONTRADICTION))
    return {kind: strictest(kind, found) for kind, found in values.items() if found}


def _upstream(connection: sa.Connection, repository_key: int) -> Iterator[Mapping[str, str]]:
    seen, waiting = {repository_key}, [repository_key]
    while waiting:
        rows = connection.execute(
            sa.select(lineage.c.repository_id, lineage.c.labels)
            .join(schema.commits, schema.commits.c.id == lineage.c.commit_id)
            .where(schema.commits.c.repository_id == waiting.pop(), lineage.c.counts)
        ).all()
        for row in rows:
            if row.repository_id is None and row.labels is not None:
                yield row.labels  # gone, and remembered
        above = {row.repository_id for row in rows if row.repository_id} - seen
        seen |= above
        waiting += above
        if above:
            declared = connection.execute(
                sa.select(access.c.repository_id, access.c.labels).where(
                    access.c.repository_id.in_(above)
                )
            ).all()
            labels = {row.repository_id: row.labels for row in declared}
            yield from (labels.get(key, {}) for key in sorted(above))


def _descendants(connection: sa.Connection, repository_key: int) -> list[int]:
    seen, waiting = {repository_key}, [repository_key]
    while waiting:
        below = connection.execute(
            sa.select(schema.commits.c.repository_id)
            .join(lineage, lineage.c.commit_id == schema.commits.c.id)
            .where(lineage.c.repository_id == waiting.pop(), lineage.c.counts)
            .distinct()
        ).scalars()
        fresh = set(below) - seen
        seen |= fresh
        waiting += fresh
    return sorted(seen - {repository_key})


def _texts(card: Mapping[str, Any] | None, key: str) -> list[str]:
    value = card.get(key) if card else None
    values = value if isinstance(value, list) else [value]
    return [text[:_NAME_LENGTH] for text in values if isinstance(text, str) and text]
