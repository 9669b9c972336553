"""What Prometheus sees of the lanes."""

from collections.abc import Iterator

from holdfast_gateway.fairness.admission import Fairness
from holdfast_gateway.metering.exposition import Gauges

_LABELS = ("model", "upstream", "lane")


def lane_gauges(fairness: Fairness) -> tuple[Gauges, Gauges]:
    """Return how many are being served and how many wait, in each lane of each pool."""

    def in_flight() -> Iterator[tuple[tuple[str, ...], float]]:
        for each in fairness.state():
            yield (each.model, each.upstream, each.lane), each.in_flight

    def queued() -> Iterator[tuple[tuple[str, ...], float]]:
        for each in fairness.state():
            yield (each.model, each.upstream, each.lane), each.queued

    return (
        Gauges("holdfast_gateway_lane_in_flight", "Requests being served.", _LABELS, in_flight),
        Gauges("holdfast_gateway_lane_queued", "Requests that wait for a place.", _LABELS, queued),
    )
