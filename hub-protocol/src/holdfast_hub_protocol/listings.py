"""What listings are answered from: one short row for each repository, and what it is found by.

Written with every change of a main branch or a name, so that a listing reads no commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.tags import tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAIN: Final = "refs/heads/main"
GRAM: Final = 3  # characters: shorter texts are looked for in every name

listings: Final = sa.Table(
    "listings",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("snapshot_id", sa.Integer),  # of main; null: there is no main
    sa.Column("oid", sa.String(40)),
    sa.Column("tags", schema.Document, nullable=False),
    sa.Column("pipeline_tag", sa.Text),
    sa.Column("library_name", sa.Text),
    sa.Column("parameters", sa.BigInteger, index=True),  # null: not known
)

# One row for each tag, and for every three characters in a row of the name.
terms: Final = sa.Table(
    "search_terms",
    schema.metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("term", schema.Name, primary_key=True),
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        index=True,
    ),
    sqlite_with_rowid=False,
)


def tag_term(tag: str) -> str:
    """Return the term of a tag; upper and lower case are one."""
    return f"tag:{tag.lower()}"


def task_term(task: str) -> str:
    """Return the term of a pipeline tag."""
    return f"task:{task.lower()}"


def name_terms(text: str) -> set[str]:
    """Return the terms of a part of a name: none if it is too short."""
    folded = text.lower()
    return {f"name:{folded[at : at + GRAM]}" for at in range(len(folded) - GRAM + 1)}


def index_repository(connection: sa.Connection, repository_key: int) -> None:
    """Bring what listings know of a repository up to date, in the transaction that changes it."""
    table, refs, commits = schema.repositories, schema.refs, schema.commits
    row = connection.execute(
        sa.select(
            *(table.c.kind, table.c.folded, commits.c.oid, commits.c.snapshot_id),
            schema.snapshots.c.facts,
        )
        .select_from(
            table.outerjoin(refs, (refs.c.repository_id == table.c.id) & (refs.c.name == _MAIN))
            .outerjoin(commits, commits.c.id == refs.c.commit_id)
            .outerjoin(schema.snapshots, schema.snapshots.c.id == commits.c.snapshot_id)
        )
        .where(table.c.id == repository_key)
    ).one()
    facts: dict[str, Any] = row.facts or {}
    tags = tags_of(row.kind, facts)
    values = {
        "snapshot_id": row.snapshot_id,
        "oid": row.oid,
        "tags": tags,
        "pipeline_tag": facts.get("pipeline_tag"),
        "library_name": facts.get("library_name"),
        "parameters": _parameters(facts),
    }
    where = listings.c.repository_id == repository_key
    if not connection.execute(listings.update().where(where).values(**values)).rowcount:
        connection.execute(listings.insert().values(repository_id=repository_key, **values))
    wanted = {tag_term(tag) for tag in tags} | name_terms(row.folded)
    if values["pipeline_tag"]:
        wanted.add(task_term(values["pipeline_tag"]))
    _write_terms(connection, row.kind, repository_key, wanted)


def index_missing(engine: sa.Engine) -> int:
    """Index the repositories that listings know nothing of yet; return how many."""
    table = schema.repositories
    with engine.begin() as connection:
        keys = connection.execute(
            sa.select(table.c.id)
            .outerjoin(listings, listings.c.repository_id == table.c.id)
            .where(listings.c.repository_id.is_(None))
        ).scalars()
        found = list(keys)
        for key in found:
            index_repository(connection, key)
    return len(found)


def _write_terms(
    connection: sa.Connection, kind: str, repository_key: int, wanted: set[str]
) -> None:
    mine = terms.c.repository_id == repository_key
    known = set(connection.execute(sa.select(terms.c.term).where(mine)).scalars())
    if gone := sorted(known - wanted):
        connection.execute(terms.delete().where(mine, terms.c.term.in_(gone)))
    if new := sorted(wanted - known):
        connection.execute(
            terms.insert(),
            [{"kind": kind, "term": term, "repository_id": repository_key} for term in new],
        )


def _parameters(facts: Mapping[str, Any]) -> int | None:
    tensors = facts.get("safetensors")
    total = tensors.get("total") if isinstance(tensors, dict) else None
    return total if isinstance(total, int) else None
