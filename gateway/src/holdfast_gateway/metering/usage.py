"""The usage table: one row per request that was let through, and its sums."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import (
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
    func,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

State = Literal["done", "aborted", "error"]

_METADATA = MetaData()

USAGE = Table(
    "usage",
    _METADATA,
    Column("request_id", String(64), primary_key=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("principal_kind", String(16), nullable=False),
    Column("team", String(128)),
    Column("model", String(256), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("ttft_ms", Float),
    Column("duration_ms", Float, nullable=False),
    Index("usage_by_time", "time"),
    Index("usage_by_principal", "principal", "time"),
)


@dataclass(frozen=True)
class UsageRow:
    """One request: who, what, how it ended, tokens (None is unknown), times in milliseconds.

    `status` is what the client was told, 499 when it had gone before it could be told. `team` is
    the first by name of the principal's teams that may use the model.
    """

    request_id: str
    time: datetime
    principal: str
    principal_kind: str
    team: str | None
    model: str
    endpoint: str
    stream: bool
    status: int
    state: State
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    ttft_ms: float | None
    duration_ms: float


@dataclass(frozen=True)
class UsageSum:
    """Sums of one model and principal. Unknown token counts add nothing; `unknown` counts them."""

    model: str
    principal: str
    requests: int
    done: int
    aborted: int
    error: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    unknown: int


class UsageStore:
    """The usage database. Its calls block, so none belongs on the event loop."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._engine: Engine = create_engine(parsed, pool_pre_ping=True)
        if parsed.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)

    def create_schema(self) -> None:
        """Create what is missing."""
        _METADATA.create_all(self._engine)

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """Write rows in one transaction, either all or none."""
        with self._engine.begin() as connection:
            connection.execute(insert(USAGE), [asdict(row) for row in rows])

    def known(self, request_ids: Sequence[str]) -> set[str]:
        """Return which of these requests have a row."""
        query = select(USAGE.c.request_id).where(USAGE.c.request_id.in_(request_ids))
        with self._engine.connect() as connection:
            return set(connection.scalars(query))

    def sums(self) -> list[UsageSum]:
        """Return the sums per model and principal, in that order."""
        table = USAGE.c
        query = (
            select(
                table.model,
                table.principal,
                func.count().label("requests"),
                func.count().filter(table.state == "done").label("done"),
                func.count().filter(table.state == "aborted").label("aborted"),
                func.count().filter(table.state == "error").label("error"),
                func.coalesce(func.sum(table.prompt_tokens), 0).label("prompt_tokens"),
                func.coalesce(func.sum(table.cached_tokens), 0).label("cached_tokens"),
                func.coalesce(func.sum(table.completion_tokens), 0).label("completion_tokens"),
                func.count().filter(table.completion_tokens.is_(None)).label("unknown"),
            )
            .group_by(table.model, table.principal)
            .order_by(table.model, table.principal)
        )
        with self._engine.connect() as connection:
            return [UsageSum(**row) for row in connection.execute(query).mappings()]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers (holdfast-gateway usage) never block us
    cursor.execute("PRAGMA synchronous=FULL")  # a row that was reported written survives power loss
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
