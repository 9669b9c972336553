"""Tables and connections: SQLite on one node, PostgreSQL for several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

SCHEMA_VERSION = 3

# What brings a database one version on; both databases understand it.
_STEPS = {
    1: (
        "ALTER TABLE membership ADD COLUMN role VARCHAR(16) DEFAULT 'read' NOT NULL",
        "ALTER TABLE membership ADD COLUMN origin VARCHAR(16) DEFAULT '' NOT NULL",
        "ALTER TABLE token ADD COLUMN scope TEXT",
    ),
    2: (
        "ALTER TABLE trust_schema ADD COLUMN changes BIGINT DEFAULT 0 NOT NULL",
        """CREATE TABLE agent (
            principal_id INTEGER NOT NULL PRIMARY KEY REFERENCES principal (id) ON DELETE CASCADE,
            owner_id INTEGER NOT NULL REFERENCES principal (id) ON DELETE CASCADE,
            owner_generation INTEGER NOT NULL,
            expires_at BIGINT NOT NULL,
            hours VARCHAR(16),
            scope TEXT NOT NULL)""",
        "CREATE INDEX ix_agent_owner_id ON agent (owner_id)",
        """CREATE TABLE switch (
            kind VARCHAR(16) NOT NULL,
            name VARCHAR(256) NOT NULL,
            since BIGINT NOT NULL,
            by_whom TEXT NOT NULL,
            reason TEXT NOT NULL,
            lifted_at BIGINT,
            PRIMARY KEY (kind, name))""",
    ),
}

metadata = MetaData()

schema_version = Table(
    "trust_schema",
    metadata,
    Column("version", Integer, primary_key=True),
    # Counts the changes, so that watching for them costs one row.
    Column("changes", BigInteger, nullable=False, server_default="0"),
)

principals = Table(
    "principal",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    # One name space for all kinds: "who is gateway?" must have one answer.
    Column("name", String(63), nullable=False, unique=True),
    Column("generation", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
)

teams = Table(
    "team",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
)

memberships = Table(
    "membership",
    metadata,
    Column("principal_id", ForeignKey("principal.id", ondelete="CASCADE"), primary_key=True),
    Column("team_id", ForeignKey("team.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", String(16), nullable=False, server_default="read"),
    # 'site' where the site file gave it: only that may take it away again without being asked.
    Column("origin", String(16), nullable=False, server_default=""),
)

tokens = Table(
    "token",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("principal_id", ForeignKey("principal.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("last_four", String(4), nullable=False),
    # The token's own count of issues and revocations, and its owner's when it was issued:
    # raising the owner's generation ends every token of theirs in one write.
    Column("generation", Integer, nullable=False),
    Column("principal_generation", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("scope", Text),  # JSON of what it is bound to; null: all that its owner may
    UniqueConstraint("principal_id", "name"),
)

agents = Table(
    "agent",
    metadata,
    Column("principal_id", ForeignKey("principal.id", ondelete="CASCADE"), primary_key=True),
    Column("owner_id", ForeignKey("principal.id", ondelete="CASCADE"), nullable=False, index=True),
    # What ends every token of the owner's ends the agent with them, for good.
    Column("owner_generation", Integer, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("hours", String(16)),  # as `Hours` writes them; null: at any
    Column("scope", Text, nullable=False),  # as of a token; it has one in any case
)

# The kill switches: one row for each thing that was ever stopped; the ledger has the history.
switches = Table(
    "switch",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("by_whom", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("lifted_at", BigInteger),  # null: it holds
)


def connect(url: str) -> Engine:
    """Return an engine for a SQLite file or a PostgreSQL database; nothing is opened yet."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise TrustError(
            "the database URL cannot be read",
            where=url,
            cause=str(error),
            next_command="use sqlite:////absolute/path.db or postgresql+psycopg:///DATABASE",
        ) from error
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, pool_size=8
        )
    raise TrustError(
        f"{parsed.get_backend_name()} is not a database Holdfast knows",
        where=parsed.render_as_string(),
        next_command="use sqlite:////absolute/path.db or postgresql+psycopg:///DATABASE",
    )


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise TrustError(
            "a SQLite database needs a file",
            where=url.render_as_string(),
            cause="every thread would see a different one in memory",
            next_command="use sqlite:////absolute/path.db",
        )
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created here so that it is private from its first byte; -wal and -shm follow its mode.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except PermissionError:
        if not path.is_file():
            raise
    except OSError as error:
        raise TrustError(
            "the database file cannot be made", where=str(path), cause=error.strerror or str(error)
        ) from error
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def settings(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        # The driver's own BEGIN comes too late to take the write lock: `begin` below does it.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        # A revocation that was reported as done survives a power cut.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that later writes cannot wait for another writer; one that says so first can.
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def reader(engine: Engine) -> Engine:
    """Return the engine for single reads: without BEGIN and ROLLBACK a proof is one round trip."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="AUTOCOMMIT")
    return engine  # in SQLite they cost nothing, and our own BEGIN needs its isolation level


def create(engine: Engine, readers: tuple[str, ...] = ()) -> bool:
    """Create the tables if missing, bring older ones up to date; return whether it did either.

    `readers` are PostgreSQL roles that may read them (the registry's and the gateway's).
    """
    try:
        with engine.execution_options(writes=True).begin() as connection:
            lock_writers(connection)
            changed = not inspect(connection).has_table(schema_version.name)
            if changed:
                metadata.create_all(connection)
                connection.execute(insert(schema_version).values(version=SCHEMA_VERSION))
            version = connection.execute(select(schema_version.c.version)).scalar_one()
            for step in range(version, SCHEMA_VERSION):
                for statement in _STEPS[step]:
                    connection.execute(text(statement))
                connection.execute(update(schema_version).values(version=step + 1))
                changed = True
            if version > SCHEMA_VERSION:
                raise TrustError(
                    f"the identity database has schema {version}; "
                    f"this release knows {SCHEMA_VERSION}",
                    where=engine.url.render_as_string(),
                    next_command="use the holdfast-trust of the release that wrote it",
                )
            _grant(engine, connection, readers)
    except SQLAlchemyError as error:
        raise unusable(engine, error) from error
    return changed


def lock_writers(connection: Connection) -> None:
    """Let one writer in at a time until the transaction ends.

    SQLite does it by BEGIN IMMEDIATE. Changes read before they write, and are few: on PostgreSQL
    a lock is simpler to be sure of than retries after collisions.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(7204219)"))


def _grant(engine: Engine, connection: Connection, readers: tuple[str, ...]) -> None:
    if readers and engine.dialect.name != "postgresql":
        raise TrustError(
            "readers can only be named for PostgreSQL",
            where=engine.url.render_as_string(),
            cause="who may read a SQLite file is a matter of its mode",
        )
    quote = engine.dialect.identifier_preparer.quote
    for role in readers:
        for table in metadata.sorted_tables:
            connection.execute(text(f"GRANT SELECT ON {quote(table.name)} TO {quote(role)}"))


def unusable(engine: Engine, error: SQLAlchemyError) -> TrustError:
    """Return the error for people when the database does not answer as it should."""
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    # No tables, or those of an older release: the same command mends both.
    missing = "no such table" in cause or "no such column" in cause
    missing |= "does not exist" in cause and cause.startswith(("relation", "column"))
    url = engine.url.render_as_string()
    return TrustError(
        "the identity database cannot be used",
        where=url,
        cause=cause,
        next_command=f"holdfast-trust --database {url} init" if missing else "",
    )
