"""The usage table: one row per request that was let through."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from holdfast_gateway.metering.schema import bring_up_to_date

State = Literal["done", "aborted", "error", "lost"]
"""How a request ended; `lost` is one that the gateway was killed over: what it came to is unknown.
"""

_METADATA = MetaData()

USAGE = Table(
    "usage",
    _METADATA,
    Column("request_id", String(64), primary_key=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("principal_kind", String(16), nullable=False),
    Column("owner", String(128)),
    Column("token", String(64)),
    Column("team", String(128)),
    Column("session", String(128)),
    Column("gateway", String(128)),
    Column("model", String(256), nullable=False),
    Column("revision", String(128)),
    Column("endpoint", String(64), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("error_code", String(64)),
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("queue_ms", Float),
    Column("ttft_ms", Float),
    Column("itl_ms", Float),
    Column("duration_ms", Float, nullable=False),
    Column("replica", String(256)),
    Column("host", String(256)),
    Column("attempts", Integer),
    Column("cost", BigInteger),
    Column("currency", String(8)),
    Index("usage_by_time", "time"),
    Index("usage_by_principal", "principal", "time"),
    Index("usage_by_team", "team", "time"),
    Index("usage_by_session", "session", "time"),
)

ENERGY = Table(
    "energy",
    _METADATA,
    Column("host", String(256), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("joules", Float, nullable=False),
    Column("source", String(32), nullable=False),
)
"""Joules of a host in the interval that starts at `start` (Unix seconds), as they were measured."""


@dataclass(frozen=True)
class UsageRow:
    """One request: who, what, how it ended, tokens (None is unknown), times in milliseconds.

    `status` is what the client was told, 499 when it had gone before it could be told, 0 when a
    killed gateway cannot say. `owner` is the user an agent acts for; `itl_ms` the mean between
    tokens after the first; `cost` millionths of `currency`.
    """

    request_id: str
    time: datetime
    principal: str
    principal_kind: str
    owner: str | None
    token: str | None
    team: str | None
    session: str | None
    gateway: str | None
    model: str
    revision: str | None
    endpoint: str
    stream: bool
    status: int
    state: State
    error_code: str | None
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    queue_ms: float | None
    ttft_ms: float | None
    itl_ms: float | None
    duration_ms: float
    replica: str | None
    host: str | None
    attempts: int | None
    cost: int | None
    currency: str | None


class UsageStore:
    """The usage database. Its calls block, so none belongs on the event loop."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.engine: Engine = create_engine(parsed, pool_pre_ping=True)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)

    def create_schema(self) -> None:
        """Create what is missing, or bring on what an older release left; see `SchemaError`."""
        bring_up_to_date(self.engine, _METADATA)

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """Write rows in one transaction, either all or none."""
        with self.engine.begin() as connection:
            connection.execute(insert(USAGE), [vars(row) for row in rows])

    def known(self, request_ids: Sequence[str]) -> set[str]:
        """Return which of these requests have a row."""
        query = select(USAGE.c.request_id).where(USAGE.c.request_id.in_(request_ids))
        with self.engine.connect() as connection:
            return set(connection.scalars(query))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


class Median:
    """The aggregate function that SQLite lacks: half are at most so large."""

    def __init__(self) -> None:
        self._values: list[float] = []

    def step(self, value: float | None) -> None:
        """Take one value."""
        if value is not None:
            self._values.append(value)

    def finalize(self) -> float | None:
        """Return the middle one, or the mean of the two in the middle."""
        self._values.sort()
        many = len(self._values)
        if not many:
            return None
        return (self._values[(many - 1) // 2] + self._values[many // 2]) / 2


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.create_aggregate("median", 1, Median)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers (holdfast-gateway usage) never block us
    cursor.execute("PRAGMA synchronous=FULL")  # a row that was reported written survives power loss
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
