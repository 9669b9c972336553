"""Writes usage rows and ledger events off the requests' path, and loses none of them."""

import json
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from sqlalchemy.exc import DataError, SQLAlchemyError

from holdfast_gateway.metering.meters import Meters
from holdfast_gateway.metering.spool import Spool, Ticket
from holdfast_gateway.metering.usage import UsageRow

log = logging.getLogger("holdfast.gateway")

_BATCH = 256
_RETRY_SECONDS = 1.0
_GATHER_SECONDS = 0.05

Event = Mapping[str, object]


class Rows(Protocol):
    """Where usage rows go; raises SQLAlchemyError or OSError when it cannot take them."""

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """Write all or none."""

    def known(self, request_ids: Sequence[str]) -> set[str]:
        """Return which are written already."""


class Events(Protocol):
    """Where ledger events go."""

    def append(self, events: Sequence[Event]) -> list[Event]:
        """Write in this order; return those that could not be written."""


@dataclass(frozen=True)
class Item:
    """What one request leaves behind. A request that was refused has no row.

    `event` is None only where the ledger has it already; `ticket` is where the spool has both.
    """

    event: Event | None
    row: UsageRow | None = None
    ticket: Ticket | None = None


class Recorder:
    """One thread that writes items in the order they came.

    When the database or the ledger is away it tries again and the backlog grows; `full` then says
    to take no more requests, because what cannot be recorded must not be served. With a spool,
    what is unwritten survives this process. Rows and events are filed under the name of `gateway`,
    costs in `currency`.
    """

    def __init__(  # noqa: PLR0913  # where three kinds of records go, and whose they are
        self,
        rows: Rows,
        events: Events,
        backlog: int,
        *,
        spool: Spool | None = None,
        meters: Meters | None = None,
        gateway: str = "",
        currency: str = "",
    ) -> None:
        self._rows = rows
        self._events = events
        self._backlog = backlog
        self.spool = spool
        self.meters = meters or Meters()
        self.gateway = gateway
        self.currency = currency
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        """Whether more is unwritten than the configuration allows."""
        return self._pending >= self._backlog

    @property
    def pending(self) -> int:
        """How many items are unwritten."""
        return self._pending

    def put(self, item: Item) -> None:
        """Take an item; never blocks."""
        with self._lock:
            self._pending += 1
        self._queue.put(item)

    def close(self, patience: float) -> None:
        """Write what is left, for so many seconds.

        What then remains goes to the log as JSON, and stays in the spool for the next start.
        """
        self._give_up_at = time.monotonic() + patience
        self._closing.set()
        self._queue.put(None)
        self._thread.join()
        if self.spool is not None:
            self.spool.close()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[Item] = []
            item = self._queue.get()
            self._closing.wait(_GATHER_SECONDS)  # a row by itself costs as much as a hundred
            while item is not None:
                batch.append(item)
                if len(batch) == _BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            ended = item is None
            rows = self._write_rows([item.row for item in batch if item.row is not None])
            events = self._write_events([item.event for item in batch if item.event is not None])
            if self.spool is not None and rows and events:
                self.spool.written(item.ticket for item in batch if item.ticket is not None)
            with self._lock:
                self._pending -= len(batch)

    def _write_rows(self, rows: list[UsageRow]) -> bool:
        """Write all; False when there was no time left to."""
        while rows:
            try:
                self._rows.insert(rows)
            except DataError:
                # The database is there and will never take one of them: it must not hold up others.
                rows = self._without_the_unfit(rows)
                continue
            except (SQLAlchemyError, OSError) as error:
                reason = str(error).splitlines()[0]
                log.error("%d usage rows cannot be written: %s", len(rows), reason)  # noqa: TRY400  # no traceback a second
            else:
                return True
            if not self._another_try():
                for row in rows:
                    log.error("usage row not written: %s", _text(row))
                return False
            rows = self._unwritten(rows)
        return True

    def _without_the_unfit(self, rows: list[UsageRow]) -> list[UsageRow]:
        """Write one by one what can be; return what could not be for another reason."""
        left = []
        for row in rows:
            try:
                self._rows.insert([row])
            except DataError as error:
                log.error("usage row refused: %s: %s", error.orig, _text(row))  # noqa: TRY400  # as above
            except (SQLAlchemyError, OSError):
                left.append(row)
        return left

    def _unwritten(self, rows: list[UsageRow]) -> list[UsageRow]:
        """Leave out what a commit wrote whose confirmation was lost."""
        try:
            known = self._rows.known([row.request_id for row in rows])
        except (SQLAlchemyError, OSError):
            return rows
        return [row for row in rows if row.request_id not in known]

    def _write_events(self, events: list[Event]) -> bool:
        """Write all; False when there was no time left to."""
        while events:
            events = self._events.append(events)
            if events and not self._another_try():
                for event in events:
                    log.error("ledger event not written: %s", json.dumps(event, default=str))
                return False
        return True

    def _another_try(self) -> bool:
        """Wait before the next attempt; False when there is no time left for one."""
        if time.monotonic() >= self._give_up_at:
            return False
        self._closing.wait(_RETRY_SECONDS)
        if self._closing.is_set():
            time.sleep(_RETRY_SECONDS / 10)
        return True


def _text(row: UsageRow) -> str:
    return json.dumps(asdict(row), default=str)
