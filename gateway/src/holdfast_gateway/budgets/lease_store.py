"""The accounts in the database, PostgreSQL or SQLite: gateways' statements, one by one."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any  # Any: rows of SQLAlchemy, whose columns no type checker knows

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from holdfast_gateway.budgets.lease_rules import (
    Lease,
    Outcome,
    Row,
    Statement,
    apply,
    without_dead_slots,
)

_METADATA = MetaData()
_ACCOUNTS = Table(
    "budget_accounts",
    _METADATA,
    Column("account", String(512), primary_key=True),
    Column("window_start", BigInteger, nullable=False),
    Column("given", BigInteger, nullable=False),
    Column("sought_at", Float, nullable=False),
)
_LEASES = Table(
    "budget_leases",
    _METADATA,
    Column("account", String(512), primary_key=True),
    Column("gateway", String(64), primary_key=True),
    Column("window_start", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("idle", BigInteger, nullable=False),
    Column("seen_at", Float, nullable=False),
)

_BATCH = 200
_SCHEMA_LOCK = 7204220
# A statement is a few rows: what takes longer is away, and a gateway then says so.
_POSTGRESQL = {
    "connect_timeout": 3,
    "options": "-c statement_timeout=10000 -c lock_timeout=5000",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10000,
}


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as it stands: `spent` in its window, `held` by gateways that are alive.

    What gateways held that died counts as spent.
    """

    account: str
    window: int
    spent: int
    held: int


class LeaseStore:
    """The database of leases. Its calls block, so none belongs on the event loop.

    `clock` gives Unix seconds; without it PostgreSQL's own clock counts, which all gateways share,
    and this machine's with SQLite.
    """

    def __init__(
        self, url: str, *, lease_seconds: float, clock: Callable[[], float] | None = None
    ) -> None:
        parsed = make_url(url)
        self._lease_seconds = lease_seconds
        self._clock = clock
        if parsed.get_backend_name() == "postgresql":
            self._engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                pool_size=1,
                connect_args=dict(_POSTGRESQL),
            )
            self._insert: Callable[..., postgresql.Insert | sqlite.Insert] = postgresql.insert
        else:
            self._engine = create_engine(parsed)
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
            self._insert = sqlite.insert

    def create_schema(self) -> None:
        """Create what is missing; several gateways may do so at once."""
        with self._engine.begin() as connection:
            if self._is_postgresql:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
            _METADATA.create_all(connection)

    def exchange(self, gateway: str, statements: Sequence[Statement]) -> list[Outcome]:
        """Enter what a gateway states and lease what it wants; raise SQLAlchemyError or OSError."""
        # In one order everywhere: two gateways cannot wait for each other.
        ordered = sorted(statements, key=lambda each: each.account)
        outcomes: list[Outcome] = []
        for at in range(0, len(ordered), _BATCH):
            outcomes += self._exchange(gateway, ordered[at : at + _BATCH])
        return outcomes

    def balances(self) -> list[Balance]:
        """Return all accounts, in order."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_ACCOUNTS).order_by(_ACCOUNTS.c.account)).all()
            leases = _by_account(connection.execute(select(_LEASES)))
            now = self._now(connection)
        balances = []
        for row in rows:
            alive = self._alive(leases.get(row.account, {}), now)
            held = sum(each.held for each in alive.values() if each.window == row.window_start)
            balances.append(Balance(row.account, row.window_start, row.given - held, held))
        return balances

    def now(self) -> float:
        """Return the time that decides on windows, in Unix seconds."""
        with self._engine.begin() as connection:
            return self._now(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def _is_postgresql(self) -> bool:
        return self._engine.dialect.name == "postgresql"

    def _exchange(self, gateway: str, statements: Sequence[Statement]) -> Iterable[Outcome]:
        names = [each.account for each in statements]
        with self._engine.begin() as connection:
            rows = self._lock(connection, names)
            now = self._now(connection)
            query = select(_LEASES).where(_LEASES.c.account.in_(names))
            leases = _by_account(connection.execute(query))
            written: list[tuple[str, Row, Lease]] = []
            gone: list[tuple[str, str]] = []
            outcomes = []
            for statement in statements:
                name = statement.account
                of_account = leases.get(name, {})
                mine = of_account.pop(gateway, None)
                row = rows[name]
                if statement.period is None:
                    row, dead = without_dead_slots(row, of_account, now - self._lease_seconds)
                    gone += [(name, each) for each in dead]
                others = self._alive(of_account, now).values()
                row, lease, outcome = apply(row, mine, others, statement, now)
                gone += [
                    (name, other) for other, each in of_account.items() if each.window < row.window
                ]
                if lease.total == 0 and not outcome.granted:
                    gone.append((name, gateway))
                written.append((name, row, lease))
                outcomes.append(outcome)
            self._write(connection, gateway, written, gone)
        return outcomes

    def _lock(self, connection: Connection, names: list[str]) -> dict[str, Row]:
        """Return the accounts, locked until the transaction ends; missing ones are opened."""
        query = (
            select(_ACCOUNTS)
            .where(_ACCOUNTS.c.account.in_(names))
            .order_by(_ACCOUNTS.c.account)
            .with_for_update()
        )
        found = {row.account: row for row in connection.execute(query)}
        missing = [name for name in names if name not in found]
        if missing:
            empty = {"window_start": 0, "given": 0, "sought_at": 0.0}
            connection.execute(
                self._insert(_ACCOUNTS).on_conflict_do_nothing(),
                [{"account": name, **empty} for name in missing],
            )
            found = {row.account: row for row in connection.execute(query)}
        return {
            name: Row(row.window_start, row.given, row.sought_at) for name, row in found.items()
        }

    def _write(
        self,
        connection: Connection,
        gateway: str,
        written: Sequence[tuple[str, Row, Lease]],
        gone: Sequence[tuple[str, str]],
    ) -> None:
        connection.execute(
            update(_ACCOUNTS)
            .where(_ACCOUNTS.c.account == bindparam("name"))
            .values(
                window_start=bindparam("window"),
                given=bindparam("now_given"),
                sought_at=bindparam("sought"),
            ),
            [
                {
                    "name": name,
                    "window": row.window,
                    "now_given": row.given,
                    "sought": row.sought_at,
                }
                for name, row, _ in written
            ],
        )
        values = ("window_start", "held", "spent", "idle", "seen_at")
        insert = self._insert(_LEASES)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["account", "gateway"],
                set_={value: insert.excluded[value] for value in values},
            ),
            [
                {
                    "account": name,
                    "gateway": gateway,
                    "window_start": lease.window,
                    "held": lease.held,
                    "spent": lease.spent,
                    "idle": lease.idle,
                    "seen_at": lease.seen_at,
                }
                for name, _, lease in written
            ],
        )
        for name, other in gone:
            connection.execute(
                delete(_LEASES).where(_LEASES.c.account == name, _LEASES.c.gateway == other)
            )

    def _now(self, connection: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        if self._is_postgresql:
            # Not now(), which is when the transaction began: it may have waited for the lock.
            query = select(func.extract("epoch", func.clock_timestamp()))
            return float(connection.execute(query).scalar_one())
        return time.time()

    def _alive(self, leases: dict[str, Lease], now: float) -> dict[str, Lease]:
        since = now - self._lease_seconds
        return {name: lease for name, lease in leases.items() if lease.seen_at >= since}


def _by_account(rows: Iterable[Any]) -> dict[str, dict[str, Lease]]:
    found: dict[str, dict[str, Lease]] = {}
    for row in rows:
        found.setdefault(row.account, {})[row.gateway] = Lease(
            row.window_start, row.held, row.spent, row.idle, row.seen_at
        )
    return found


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # The driver's own BEGIN comes too late to take the write lock: _begin_sqlite does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
