"""Counting downloads: noted in memory when a file is sent, written now and then by a thread.

A download is a GET of the file that stands for a repository, by one caller within some minutes:
its configuration or, where there is none, its weights. Nothing is counted for certain: what a
process has noted in the last seconds before a crash is lost, and no answer waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.popularity import DAYS, downloaded, downloads, today, trending

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.records import Commit, Entry, Repository

FLUSH_SECONDS: Final = 10
ONE_DOWNLOAD_SECONDS: Final = 300  # what one caller gets of a repository in this time is one
_REMEMBERED: Final = 10_000  # callers and repositories that are told apart
_CONFIGURATIONS: Final = frozenset(
    {"config.json", "config.yaml", "hyperparams.yaml", "params.json", "meta.yaml"}
)
_WEIGHTS: Final = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack")
_LOG: Final = logging.getLogger(__name__)


class DownloadCounter:
    """Counts for one process; `start` it after a fork, `close` it at the end."""

    def __init__(self, engine: sa.Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._counted: Counter[int] = Counter()
        self._seen: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._day: date | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)

    def start(self) -> None:
        """Begin to write down what was counted."""
        self._thread.start()

    def close(self) -> None:
        """Write down the rest."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()

    def note(self, caller: Caller, repository: Repository, commit: Commit, entry: Entry) -> None:
        """Count the download that sending this file may be; never raises, never waits for disk."""
        if not _stands_for(repository, commit, entry):
            return
        now, key = self._clock(), (caller.name, repository.key)
        with self._lock:
            last = self._seen.get(key)
            if last is not None and now - last < ONE_DOWNLOAD_SECONDS:
                return
            self._seen[key] = now
            self._seen.move_to_end(key)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            self._counted[repository.key] += 1

    def flush(self) -> None:
        """Write down what was counted; what cannot be written now is kept for later."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        day = today()
        if not counted and day == self._day:
            return
        try:
            with self.engine.begin() as connection:
                for key in sorted(counted):  # one order for all processes: no deadlock
                    _add(connection, key, day, counted[key])
                if day != self._day:
                    _forget_the_past(connection)
            self._day = day
        except sa.exc.SQLAlchemyError as error:
            _LOG.warning("downloads are not counted now, later: %s", error)
            with self._lock:
                self._counted += counted

    def _run(self) -> None:
        while not self._ended.wait(FLUSH_SECONDS):
            self.flush()


def _stands_for(repository: Repository, commit: Commit, entry: Entry) -> bool:
    if repository.id.kind != "model":
        return True  # every file of a data set: there is no one that all have
    name = entry.path.rpartition("/")[2]
    if "config" in commit.facts:
        return entry.path in _CONFIGURATIONS
    return entry.path in _CONFIGURATIONS or name.endswith(_WEIGHTS)


def _add(connection: sa.Connection, key: int, day: date, count: int) -> None:
    table = schema.repositories
    mine = table.c.id == key
    total = table.c.downloads_all_time + count
    # First this: it waits for others who count the same, and tells if the repository is gone.
    if not connection.execute(table.update().where(mine).values(downloads_all_time=total)).rowcount:
        return
    row = (downloads.c.repository_id == key) & (downloads.c.day == day)
    more = downloads.update().where(row).values(count=downloads.c.count + count)
    if not connection.execute(more).rowcount:
        connection.execute(downloads.insert().values(repository_id=key, day=day, count=count))
    connection.execute(
        table.update().where(mine).values(downloads=downloaded(), trending_score=trending())
    )


def _forget_the_past(connection: sa.Connection) -> None:
    """Count anew, on a new day, what no longer belongs to the last days."""
    table = schema.repositories
    connection.execute(
        table.update()
        .where((table.c.downloads > 0) | (table.c.trending_score > 0))
        .values(downloads=downloaded(), trending_score=trending())
    )
    past = today() - timedelta(days=2 * DAYS)
    connection.execute(downloads.delete().where(downloads.c.day < past))
