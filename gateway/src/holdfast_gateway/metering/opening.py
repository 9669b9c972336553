"""Opening the record: the recorder, its spool, and what a killed gateway left behind."""

import logging
from pathlib import Path

from holdfast_gateway.config import Config
from holdfast_gateway.metering.exposition import Gauge
from holdfast_gateway.metering.journal import Journal
from holdfast_gateway.metering.meters import Meters
from holdfast_gateway.metering.record import event_of, row_of
from holdfast_gateway.metering.recorder import Item, Recorder
from holdfast_gateway.metering.spool import Left, Spool
from holdfast_gateway.metering.usage import UsageStore

log = logging.getLogger("holdfast.gateway")

_ASKED_AT_ONCE = 256


def spool_folder(ledger: Path) -> Path:
    """Return where requests stand until they are recorded: beside the ledger."""
    return ledger.with_name(f"{ledger.name}.pending")


def open_recorder(config: Config, store: UsageStore, journal: Journal) -> Recorder:
    """Open the recorder and hand it what killed gateways left; raise OSError for a bad disk."""
    spool = Spool(spool_folder(config.ledger))
    left = spool.recover()
    items = _items(left, store, journal) if left else []
    meters = Meters()
    recorder = Recorder(
        store,
        journal,
        config.limits.usage_backlog,
        spool=spool,
        meters=meters,
        gateway=config.instance,
        currency=config.currency,
    )
    meters.watch(
        Gauge(
            "holdfast_gateway_unwritten",
            "Usage rows and ledger events that wait to be written.",
            lambda: recorder.pending,
        )
    )
    for item in items:
        recorder.put(item)
    return recorder


def _items(left: list[Left], store: UsageStore, journal: Journal) -> list[Item]:
    """Return what is still to be written: a row or an event may be there without the other."""
    ids = [each.opening.request_id for each in left]
    rows: set[str] = set()
    for at in range(0, len(ids), _ASKED_AT_ONCE):
        rows |= store.known(ids[at : at + _ASKED_AT_ONCE])
    events = journal.recent()
    lost = sum(each.closing.state == "lost" for each in left)
    log.warning(
        "a gateway was killed: %d requests that had ended are recorded now, and %d in progress "
        "as lost",
        len(left) - lost,
        lost,
    )
    return [
        Item(
            None if opening.request_id in events else event_of(opening, closing),
            None if opening.request_id in rows else row_of(opening, closing),
            ticket,
        )
        for opening, closing, ticket in left
    ]
