"""The version of the usage tables, and the steps that bring an older one on."""

from sqlalchemy import Connection, Engine, MetaData, inspect, text

VERSION = 2
_LOCK = 0x686F6C64  # PostgreSQL's advisory lock of whoever changes these tables

# From the version named to the next one. Both databases understand it.
_STEPS = {
    1: (
        "ALTER TABLE usage ADD COLUMN owner VARCHAR(128)",
        "ALTER TABLE usage ADD COLUMN token VARCHAR(64)",
        "ALTER TABLE usage ADD COLUMN session VARCHAR(128)",
        "ALTER TABLE usage ADD COLUMN gateway VARCHAR(128)",
        "ALTER TABLE usage ADD COLUMN revision VARCHAR(128)",
        "ALTER TABLE usage ADD COLUMN error_code VARCHAR(64)",
        "ALTER TABLE usage ADD COLUMN queue_ms FLOAT",
        "ALTER TABLE usage ADD COLUMN itl_ms FLOAT",
        "ALTER TABLE usage ADD COLUMN replica VARCHAR(256)",
        "ALTER TABLE usage ADD COLUMN host VARCHAR(256)",
        "ALTER TABLE usage ADD COLUMN attempts INTEGER",
        "ALTER TABLE usage ADD COLUMN cost BIGINT",
        "ALTER TABLE usage ADD COLUMN currency VARCHAR(8)",
        "CREATE INDEX usage_by_team ON usage (team, time)",
        "CREATE INDEX usage_by_session ON usage (session, time)",
    ),
}


class SchemaError(Exception):
    """The tables are of a release newer than this one."""


def bring_up_to_date(engine: Engine, metadata: MetaData) -> None:
    """Create the tables, or alter those of an older release; one process at a time does it.

    Raises SchemaError for tables of a newer release: what it means by a column is not known here.
    """
    if engine.dialect.name == "sqlite":
        # The driver would open no transaction before a CREATE: two processes could begin at once.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                _bring(connection, metadata)
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _bring(connection, metadata)


def _bring(connection: Connection, metadata: MetaData) -> None:
    found = _version(connection)
    if found > VERSION:
        raise SchemaError(
            f"the usage tables are of version {found}, this release knows {VERSION}: "
            "start the release that wrote them"
        )
    if found == VERSION:
        return
    if found:
        for version in range(found, VERSION):
            for step in _STEPS[version]:
                connection.execute(text(step))
    metadata.create_all(connection)
    connection.execute(
        text("CREATE TABLE IF NOT EXISTS usage_schema (version INTEGER PRIMARY KEY)")
    )
    connection.execute(text("DELETE FROM usage_schema"))
    connection.execute(
        text("INSERT INTO usage_schema (version) VALUES (:version)"), {"version": VERSION}
    )


def _version(connection: Connection) -> int:
    """Return the version found; 0 for no tables, 1 for the release that did not write it down."""
    tables = inspect(connection).get_table_names()
    if "usage_schema" in tables:
        return int(connection.execute(text("SELECT max(version) FROM usage_schema")).scalar() or 0)
    return 1 if "usage" in tables else 0
