"""A database of the first release is brought up to date; one of a later release is let be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_hub_protocol.listings import terms
from holdfast_hub_protocol.metadata import MAIN, MetadataStore
from holdfast_hub_protocol.upgrades import VERSION, NewerSchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    else:
        url = f"sqlite:///{tmp_path}/hub.db"
    opened = schema.open_engine(url)
    yield opened
    opened.dispose()


def first_release() -> sa.MetaData:
    """Return the tables as the first release made them."""
    metadata, name = sa.MetaData(), schema.Name
    moment = sa.DateTime(timezone=True)
    sa.Table(
        "repositories",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("namespace", name, nullable=False),
        sa.Column("name", name, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.UniqueConstraint("kind", "namespace", "name"),
    )
    sa.Table(
        "snapshots",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("repository_id", sa.ForeignKey("repositories.id"), nullable=False),
        sa.Column("tree_oid", sa.String(40), nullable=False),
        sa.Column("facts", schema.Document, nullable=False),
        sa.UniqueConstraint("repository_id", "tree_oid"),
    )
    sa.Table(
        "entries",
        metadata,
        sa.Column("snapshot_id", sa.ForeignKey("snapshots.id"), primary_key=True),
        sa.Column("path", name, primary_key=True),
        sa.Column("parent", name, nullable=False),
        sa.Column("oid", sa.String(40), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64)),
        sa.Column("is_lfs", sa.Boolean, nullable=False),
        sa.Index("entries_by_parent", "snapshot_id", "parent", "path"),
    )
    sa.Table(
        "commits",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("repository_id", sa.ForeignKey("repositories.id"), nullable=False),
        sa.Column("oid", sa.String(40), nullable=False),
        sa.Column("snapshot_id", sa.ForeignKey("snapshots.id"), nullable=False),
        sa.Column("parent_oid", sa.String(40)),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("date", moment, nullable=False),
        sa.UniqueConstraint("repository_id", "oid"),
    )
    sa.Table(
        "refs",
        metadata,
        sa.Column("repository_id", sa.ForeignKey("repositories.id"), primary_key=True),
        sa.Column("name", name, primary_key=True),
        sa.Column("commit_id", sa.ForeignKey("commits.id"), nullable=False),
    )
    return metadata


def fill(engine: sa.Engine, tables: sa.MetaData) -> None:
    rows = {
        "repositories": {
            "id": 1, "kind": "model", "namespace": "Org", "name": "Name",
            "created_at": NOW, "updated_at": NOW,
        },
        "snapshots": {"id": 1, "repository_id": 1, "tree_oid": "a" * 40, "facts": {"tags": ["x"]}},
        "entries": {
            "snapshot_id": 1, "path": "x", "parent": "", "oid": "b" * 40, "size": 1,
            "sha256": "c" * 64, "is_lfs": False,
        },
        "commits": {
            "id": 1, "repository_id": 1, "oid": "d" * 40, "snapshot_id": 1, "title": "t",
            "message": "", "author": "ada", "date": NOW,
        },
        "refs": {"repository_id": 1, "name": MAIN, "commit_id": 1},
    }  # fmt: skip
    tables.create_all(engine)
    with engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(tables.tables[name].insert().values(**row))


def test_nothing_is_lost(engine: sa.Engine) -> None:
    fill(engine, first_release())
    store = MetadataStore(engine)
    for _ in range(2):  # the second time there is nothing to do
        store.create_schema()
    repository = store.repository(RepositoryId.parse("org/name"))
    assert repository is not None
    assert (repository.private, repository.gated, repository.disabled_reason) == (True, "", "")
    commit = store.commit(repository, "main")
    assert commit is not None
    assert commit.facts == {"tags": ["x"]}
    assert [(entry.path, entry.last_commit) for entry in store.files(commit)] == [("x", None)]
    with engine.begin() as connection:
        assert connection.execute(sa.select(schema.schema_version.c.version)).all() == [(VERSION,)]
        # Two commits may hold one tree, each with its own history.
        connection.execute(
            schema.snapshots.insert().values(id=2, repository_id=1, tree_oid="a" * 40, facts={})
        )
    nowhere = schema.refs.insert().values(repository_id=1, name="refs/heads/x", commit_id=99)
    with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(nowhere)


def test_it_comes_to_the_same_tables(engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine, first_release())
    MetadataStore(engine).create_schema()
    upgraded = sa.inspect(engine)
    new = schema.open_engine(f"sqlite:///{tmp_path}/new.db")
    MetadataStore(new).create_schema()
    created = sa.inspect(new)
    for table in ("repositories", "snapshots", "entries", "commits", "refs"):
        for inspected in (upgraded, created):
            assert inspected.has_table(table)
        columns = [{c["name"] for c in each.get_columns(table)} for each in (upgraded, created)]
        assert columns[0] == columns[1]
        indexes = [{i["name"] for i in each.get_indexes(table)} for each in (upgraded, created)]
        # PostgreSQL lists the indexes of its constraints, too.
        assert indexes[1] <= indexes[0]
    new.dispose()


def test_a_later_release_is_let_be(engine: sa.Engine) -> None:
    store = MetadataStore(engine)
    store.create_schema()
    with engine.begin() as connection:
        connection.execute(schema.schema_version.update().values(version=VERSION + 1))
    with pytest.raises(NewerSchemaError, match=f"version {VERSION + 1}"):
        store.create_schema()


def test_what_listings_are_found_by_is_made_anew(engine: sa.Engine) -> None:
    """The second version kept the terms in no order of names."""
    fill(engine, first_release())
    store = MetadataStore(engine)
    store.create_schema()
    with engine.begin() as connection:
        rows = connection.execute(sa.select(terms)).all()
        connection.execute(schema.schema_version.update().values(version=2))
        connection.exec_driver_sql("DROP TABLE search_terms")
        connection.exec_driver_sql(
            "CREATE TABLE search_terms (kind VARCHAR(16) NOT NULL, term VARCHAR NOT NULL, "
            "repository_id INTEGER NOT NULL, PRIMARY KEY (kind, term, repository_id))"
        )
    store.create_schema()
    with engine.connect() as connection:
        assert connection.execute(sa.select(terms)).all() == rows
        assert {row.place for row in rows} == {"Org Name"}
        assert "tag:x" in {row.term for row in rows}
