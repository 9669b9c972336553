"""Observations of a revision's files: known ones from the database, new ones by looking."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from holdfast_model_registry.formats import Observation, observe
from holdfast_model_registry.formats.recognition import claim_of
from holdfast_model_registry.review.tables import observations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from holdfast_hub_protocol.records import NewFile

    Key = tuple[str, str]

_REMEMBERED: Final = 100_000
_ALIKE: Final = 1000
_BATCH: Final = 500


class Observer:
    """Looks at files, each content once; what it saw is kept with `keep`."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Key, Observation] = OrderedDict()
        self._alike: dict[Observation, Observation] = {}  # most are: one object for all of them
        self._lock = threading.Lock()

    def observe(
        self,
        connection: sa.Connection,
        files: Sequence[NewFile],
        blob: Callable[[str], Path],
        *,
        deep: bool = False,
    ) -> dict[str, Observation]:
        """Return every file's observation, by path; with `deep` none of them is incomplete."""
        wanted = {file.path: (file.sha256, claim_of(file.path)) for file in files}
        known = self._known(connection, set(wanted.values()))
        found: dict[str, Observation] = {}
        for path, key in wanted.items():
            seen = known.get(key)
            if seen is None or (deep and not seen.complete):
                seen = known[key] = observe(path, blob(key[0]), deep=deep)
                self._remember(key, seen)
            found[path] = seen
        return found

    def keep(self, connection: sa.Connection, files: Iterable[NewFile]) -> None:
        """Write down what was seen of these files and is not in the database yet."""
        rows = []
        for file in files:
            key = (file.sha256, claim_of(file.path))
            with self._lock:
                seen = self._seen.get(key)
            if seen is not None:
                rows.append({"sha256": key[0], "claim": key[1], "observation": seen.as_json()})
        unique = list({(row["sha256"], row["claim"]): row for row in rows}.values())
        for first in range(0, len(unique), _BATCH):
            _insert_new(connection, unique[first : first + _BATCH])

    def replace(self, connection: sa.Connection, key: Key, seen: Observation) -> None:
        """Put a deep look in the place of a shallow one."""
        connection.execute(
            observations.update()
            .where(observations.c.sha256 == key[0], observations.c.claim == key[1])
            .values(observation=seen.as_json())
        )
        self._remember(key, seen)

    def forget_failed(self, connection: sa.Connection, files: Sequence[NewFile]) -> bool:
        """Forget the looks at these files that came to no end; return whether there were any."""
        keys = {(file.sha256, claim_of(file.path)) for file in files}
        failed = [key for key, seen in self._known(connection, keys).items() if seen.failed]
        for sha256, claim in failed:
            connection.execute(
                observations.delete().where(
                    observations.c.sha256 == sha256, observations.c.claim == claim
                )
            )
            with self._lock:
                self._seen.pop((sha256, claim), None)
        return bool(failed)

    def _remember(self, key: Key, seen: Observation) -> None:
        with self._lock:
            if len(self._alike) > _ALIKE:
                self._alike.clear()
            self._seen[key] = self._alike.setdefault(seen, seen)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)

    def _known(self, connection: sa.Connection, keys: set[Key]) -> dict[Key, Observation]:
        with self._lock:
            found = {key: self._seen[key] for key in keys if key in self._seen}
        # Another process may have looked deeper than this one remembers.
        missing = sorted({key[0] for key in keys if key not in found or not found[key].complete})
        for first in range(0, len(missing), _BATCH):
            rows = connection.execute(
                sa.select(observations).where(
                    observations.c.sha256.in_(missing[first : first + _BATCH])
                )
            )
            for row in rows:
                if (row.sha256, row.claim) in keys:
                    found[row.sha256, row.claim] = Observation.from_json(row.observation)
        return found


def _insert_new(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(observations).on_conflict_do_nothing(), rows)
