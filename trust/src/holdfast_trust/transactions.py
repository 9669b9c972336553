"""Reading and changing the identity database; every change an event on the ledger."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError

from holdfast_trust import database
from holdfast_trust.clock import Clock
from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, RowMapping

    from holdfast_trust.ledger import Ledger


class Change:
    """A change under way: its connection and the events it will be known by."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events: list[dict[str, object]] = []

    def record(self, action: str, **fields: object) -> None:
        """Note an event; it goes on the ledger only if the whole change holds."""
        self.events.append({"action": action, **fields})


class Transactions:
    """The identity database at `url`, with the ledger that its changes go on."""

    def __init__(self, url: str, ledger: Ledger | None, actor: str) -> None:
        self._engine = database.connect(url)
        self._reader = database.reader(self._engine)
        self._writer = self._engine.execution_options(writes=True)
        self._ledger = ledger
        self._actor = actor
        self._clock = Clock()

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def create_schema(self, readers: tuple[str, ...] = ()) -> bool:
        """Create the tables or bring them up to date, let PostgreSQL roles read them.

        Returns whether tables were made or changed.
        """
        changed = database.create(self._engine, readers)
        if self._ledger is not None and (changed or readers):
            event: dict[str, object] = {
                "action": "identity.init",
                "actor": self._actor,
                "created": changed,
                "schema": database.SCHEMA_VERSION,
            }
            self._ledger.append({**event, "readers": list(readers)})
        return changed

    def _changed(self) -> None:
        """Forget what was remembered of the database: called after each change."""

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._reader.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database.unusable(self._engine, error) from error

    @contextmanager
    def _write(self) -> Iterator[Change]:
        try:
            with self._writer.begin() as connection:
                database.lock_writers(connection)
                change = Change(connection)
                yield change
                if change.events:
                    counted = database.schema_version.c.changes + 1
                    connection.execute(update(database.schema_version).values(changes=counted))
                # Last before the commit: an event too many after a crash, never one too few.
                if self._ledger is not None:
                    for event in change.events:
                        self._ledger.append({**event, "actor": self._actor})
        except SQLAlchemyError as error:
            raise database.unusable(self._engine, error) from error
        finally:
            self._changed()


def now() -> int:
    """Return Unix seconds."""
    return int(time.time())


def find_principal(connection: Connection, name: str) -> RowMapping:
    """Return the row of a user, service or agent; `TrustError` if there is none."""
    statement = select(database.principals).where(database.principals.c.name == name)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise TrustError(
            f"no user or service {name!r}", next_command=f"holdfast-trust user add {name}"
        )
    return row


def find_team(connection: Connection, name: str) -> int:
    """Return a team's id; `TrustError` if there is none."""
    statement = select(database.teams.c.id).where(database.teams.c.name == name)
    found = connection.execute(statement).scalar()
    if found is None:
        raise TrustError(f"no team {name!r}", next_command=f"holdfast-trust team add {name}")
    return int(found)
