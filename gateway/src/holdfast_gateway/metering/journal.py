"""The gateway's side of the ledger: opened late, opened again after a failed disk."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_gateway.metering.recorder import Event
from holdfast_trust.errors import TrustError
from holdfast_trust.ledger import Entry, Ledger

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger("holdfast.gateway")

_ENTRIES = "entries.jsonl"
_TAIL_BYTES = 16 << 20  # far more than several gateways write while one of them is started again
_REQUEST = re.compile(rb'"request_id":"(req_[0-9a-f]{32})"')


class Journal:
    """A ledger in a folder. Used by the recorder's thread alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger: Ledger | None = Ledger(folder)

    def append(self, events: Sequence[Event]) -> list[Event]:
        """Write events with as few syncs as can be; return those not known to be on disk.

        After a failed sync an event may stand on the ledger twice, with one request id.
        """
        handed_in: list[tuple[Event, Future[Entry]]] = []
        left: list[Event] = []
        try:
            if self._ledger is None:
                self._ledger = Ledger(self._folder)
            for event in events:
                written = self._ledger.submit(event)
                handed_in.append((event, written))
        except TrustError as error:
            log.error("the ledger takes no events: %s", error)  # noqa: TRY400  # said by the error itself
            left = list(events[len(handed_in) :])
        for event, written in handed_in:
            failure = written.exception()
            if failure is not None:
                log.error("an event is not on the ledger: %s", failure)
                left.append(event)
        if left:
            self.close()  # a ledger accepts nothing after a failed write until it is opened again
        return left

    def recent(self) -> set[str]:
        """Return the requests whose events stand in the last part of the ledger."""
        with (self._folder / _ENTRIES).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return {found.decode() for found in _REQUEST.findall(file.read())}

    def close(self) -> None:
        """Finish, sign, close."""
        ledger, self._ledger = self._ledger, None
        if ledger is None:
            return
        try:
            ledger.close()
        except (TrustError, OSError) as error:
            log.error("the ledger was not closed with a checkpoint: %s", error)  # noqa: TRY400  # as above
