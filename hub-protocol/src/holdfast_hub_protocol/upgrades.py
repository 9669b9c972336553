"""The database's own version: made new, brought up to date, or refused because it is newer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.listings import index_missing, listings, terms

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 3


class NewerSchemaError(Exception):
    """A later release has written to this database; this one must not."""


def create_or_upgrade(engine: sa.Engine) -> None:
    """Create the tables that are missing and bring older ones up to date.

    Raises NewerSchemaError, with nothing changed, if a later release was here.
    """
    tables = set(sa.inspect(engine).get_table_names())
    version = _version(engine, tables)
    if version > VERSION:
        raise NewerSchemaError(
            f"the database has schema version {version}, this release knows {VERSION}"
        )
    if version == 1:
        _upgrade(engine)
    if version == 2:
        # Made anew from the repositories: terms were not in the order of names.
        schema.metadata.drop_all(engine, [terms, listings])
    schema.metadata.create_all(engine)
    if version != VERSION:
        with engine.begin() as connection:
            connection.execute(schema.schema_version.delete())
            connection.execute(schema.schema_version.insert().values(version=VERSION))
    index_missing(engine)


def _version(engine: sa.Engine, tables: set[str]) -> int:
    """Return 0 for an empty database; the first release wrote no version."""
    if schema.schema_version.name in tables:
        with engine.connect() as connection:
            return connection.execute(sa.select(schema.schema_version.c.version)).scalar() or 0
    return 1 if schema.repositories.name in tables else 0


def _upgrade(engine: sa.Engine) -> None:
    """Bring the first version to the second, in one transaction."""
    added = [
        *(schema.repositories.c[name] for name in ("folded", "private", "gated")),
        *(schema.repositories.c[name] for name in ("downloads", "disabled_reason")),
        *(schema.repositories.c[name] for name in ("downloads_all_time", "likes")),
        *(schema.repositories.c[name] for name in ("trending_score", "access_class")),
        schema.entries.c.last_commit,
        schema.commits.c.object,
    ]
    statements = [_add_column(engine, column) for column in added]
    statements.append("UPDATE repositories SET folded = lower(namespace || '/' || name)")
    if engine.dialect.name == "sqlite":
        statements += _without_unique_trees()
    else:
        statements.append(
            "ALTER TABLE snapshots DROP CONSTRAINT snapshots_repository_id_tree_oid_key"
        )
    _execute(engine, statements)
    for index in (*schema.repositories.indexes, *schema.snapshots.indexes):
        index.create(engine, checkfirst=True)


def _add_column(engine: sa.Engine, column: sa.Column[object]) -> str:
    definition = sa.schema.CreateColumn(column).compile(dialect=engine.dialect)
    return f"ALTER TABLE {column.table.name} ADD COLUMN {definition}"


def _without_unique_trees() -> list[str]:
    # SQLite drops no constraint: the table is made again, and foreign keys keep its name.
    return [
        (
            "CREATE TABLE snapshots_new (id INTEGER NOT NULL PRIMARY KEY, "
            "repository_id INTEGER NOT NULL REFERENCES repositories (id), "
            "tree_oid VARCHAR(40) NOT NULL, facts JSON NOT NULL)"
        ),
        "INSERT INTO snapshots_new SELECT id, repository_id, tree_oid, facts FROM snapshots",
        "DROP TABLE snapshots",
        "ALTER TABLE snapshots_new RENAME TO snapshots",
    ]


def _execute(engine: sa.Engine, statements: Sequence[str]) -> None:
    with engine.connect() as connection:
        sqlite = engine.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
        if sqlite:
            connection.invalidate()  # the next one has the settings that every connection has
