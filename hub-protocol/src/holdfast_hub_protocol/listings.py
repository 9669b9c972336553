"""What listings are answered from: one short row for each repository, and what it is found by.

Written with every change of a main branch or a name, so that a listing reads no commit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.tags import tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MAIN: Final = "refs/heads/main"
_BATCH: Final = 500  # repositories indexed in one transaction
GRAM: Final = 3  # characters of a term of a name
_NAME: Final = "name:"
_END: Final = " "  # sorts before every character of a name, as the next sorts after
_AFTER_END: Final = "!"
_LAST: Final = "~"

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

# One row for each tag, and for every three characters in a row of the name. The rows of a term
# stand in the order of listings: the first that have it, or have several, are found by seeking.
terms: Final = sa.Table(
    "search_terms",
    schema.metadata,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("term", schema.Name, primary_key=True),
    sa.Column("place", schema.Name, primary_key=True),
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sqlite_with_rowid=False,
)


def place_of(namespace: str, name: str = "") -> str:
    """Return what sorts as a repository does by namespace and name; without name: before all."""
    return f"{namespace}{_END}{name}"


def after_namespace(namespace: str) -> str:
    """Return what sorts after every place in a namespace and before those in the next."""
    return f"{namespace}{_AFTER_END}"


def tag_term(tag: str) -> str:
    """Return the term of a tag; upper and lower case are one."""
    return f"tag:{tag.lower()}"


def task_term(task: str) -> str:
    """Return the term of a pipeline tag."""
    return f"task:{task.lower()}"


def name_terms(name: str) -> set[str]:
    """Return the terms of a name: every few characters in a row, to its end and past it."""
    folded = name.lower() + _END * (GRAM - 1)
    return {_NAME + folded[at : at + GRAM] for at in range(len(folded) - GRAM + 1)}


def terms_within(text: str) -> list[str]:
    """Return terms that names with this text in them have; [] for a text shorter than a term."""
    folded = text.lower()
    if len(folded) < GRAM:
        return []
    starts = {*range(0, len(folded) - GRAM, GRAM), len(folded) - GRAM}
    return [_NAME + folded[at : at + GRAM] for at in sorted(starts)]


def begins_term(text: str) -> sa.ColumnElement[bool]:
    """Return that a term of a name begins with this text: a range that the index answers."""
    folded = text.lower()
    return (terms.c.term >= _NAME + folded) & (terms.c.term < f"{_NAME}{folded}{_LAST}")


def index_repository(connection: sa.Connection, repository_key: int) -> None:
    """Bring what listings know of a repository up to date, in the transaction that changes it."""
    for each in _found_by(connection, [repository_key]):
        where = listings.c.repository_id == repository_key
        if not connection.execute(listings.update().where(where).values(**each.row)).rowcount:
            connection.execute(listings.insert().values(**each.row))
        mine = terms.c.repository_id == repository_key
        # Under another name it stands elsewhere with every term.
        connection.execute(terms.delete().where(mine, terms.c.place != each.place))
        known = set(connection.execute(sa.select(terms.c.term).where(mine)).scalars())
        if gone := sorted(known - each.terms):
            connection.execute(terms.delete().where(mine, terms.c.term.in_(gone)))
        _insert_terms(connection, [replace(each, terms=each.terms - known)])


def index_missing(engine: sa.Engine) -> int:
    """Index the repositories that listings know nothing of yet; return how many."""
    table = schema.repositories
    missing = (
        sa.select(table.c.id)
        .outerjoin(listings, listings.c.repository_id == table.c.id)
        .where(listings.c.repository_id.is_(None))
        .order_by(table.c.id)
        .limit(_BATCH)
    )
    count = 0
    while True:
        with engine.connect() as connection:
            found = _found_by(connection, list(connection.execute(missing).scalars()))
        if not found:
            return count
        try:
            with engine.begin() as connection:
                connection.execute(listings.insert(), [each.row for each in found])
                _insert_terms(connection, found)
        except sa.exc.IntegrityError:
            continue  # another process does the same
        count += len(found)


@dataclass(frozen=True)
class _Indexed:
    kind: str
    place: str
    row: dict[str, Any]  # of `listings`
    terms: set[str]


def _found_by(connection: sa.Connection, keys: Sequence[int]) -> list[_Indexed]:
    """Return what listings should know of these repositories."""
    table, refs, commits = schema.repositories, schema.refs, schema.commits
    rows = connection.execute(
        sa.select(
            *(table.c[name] for name in ("id", "kind", "namespace", "name", "folded")),
            *(commits.c.oid, commits.c.snapshot_id, schema.snapshots.c.facts),
        )
        .select_from(
            table.outerjoin(refs, (refs.c.repository_id == table.c.id) & (refs.c.name == _MAIN))
            .outerjoin(commits, commits.c.id == refs.c.commit_id)
            .outerjoin(schema.snapshots, schema.snapshots.c.id == commits.c.snapshot_id)
        )
        .where(table.c.id.in_(keys))
    )
    found = []
    for row in rows:
        facts: dict[str, Any] = row.facts or {}
        tags, task = tags_of(row.kind, facts), facts.get("pipeline_tag")
        wanted = {tag_term(tag) for tag in tags} | name_terms(row.folded)
        wanted |= {task_term(task)} if task else set()
        values = {
            "repository_id": row.id,
            "snapshot_id": row.snapshot_id,
            "oid": row.oid,
            "tags": tags,
            "pipeline_tag": task,
            "library_name": facts.get("library_name"),
            "parameters": _parameters(facts),
        }
        found.append(_Indexed(row.kind, place_of(row.namespace, row.name), values, wanted))
    return found


def _insert_terms(connection: sa.Connection, found: Sequence[_Indexed]) -> None:
    rows = [
        {
            "kind": each.kind,
            "term": term,
            "place": each.place,
            "repository_id": each.row["repository_id"],
        }
        for each in found
        for term in sorted(each.terms)
    ]
    if rows:
        connection.execute(terms.insert(), rows)


def _parameters(facts: Mapping[str, Any]) -> int | None:
    tensors = facts.get("safetensors")
    total = tensors.get("total") if isinstance(tensors, dict) else None
    return total if isinstance(total, int) else None
