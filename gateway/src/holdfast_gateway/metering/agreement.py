"""Whether the usage table and the replicas' own counters say the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, case, func, select

from holdfast_gateway.metering.monitoring import Monitoring
from holdfast_gateway.metering.reports import Question, conditions
from holdfast_gateway.metering.usage import USAGE

_COUNTERS = {"prompt": "vllm:prompt_tokens_total", "completion": "vllm:generation_tokens_total"}
_HOURS_AT_ONCE = 6
_REMEMBERED = 300  # seconds back in which a replica was scraped if it was there
_MODEL = "model_name"


@dataclass(frozen=True)
class Agreement:
    """Tokens of one model and kind. `difference` is what replicas counted beyond the table.

    `unknown` requests have no count in the table; `again` were sent to more than one replica, of
    which each counts and one is billed; `ended_early` are those of clients who had gone or replicas
    that failed, which may count a few tokens that nobody was there to see.
    """

    model: str
    kind: str
    table: int
    replicas: int | None
    unknown: int
    again: int
    ended_early: int

    @property
    def difference(self) -> int | None:
        """Return what the replicas counted beyond the table; None if nobody knows."""
        return None if self.replicas is None else self.replicas - self.table

    @property
    def verdict(self) -> str:
        """Return agree, differ (unexplained), explained or unread; unread is never ok."""
        if self.difference is None:
            return "unread"
        if self.difference == 0:
            return "agree"
        # The table billing what no replica counted is never explained.
        reasons = self.unknown or self.again or self.ended_early
        return "explained" if self.difference > 0 and reasons else "differ"

    @property
    def why(self) -> str:
        """Say what may make the difference."""
        if self.difference is None:
            return "Prometheus has no counters of its replicas for this time"
        if self.difference == 0:
            return ""
        reasons = [
            f"{count} requests {words}"
            for count, words in (
                (self.unknown, "whose tokens are unknown"),
                (self.again, "sent to a replica more than once (hedged, resumed)"),
                (self.ended_early, "that ended early"),
            )
            if count
        ]
        if self.difference < 0:
            return (
                "the replicas counted less: what they counted after the last scrape before they "
                "ended is gone, and what ran at the edges of the time is on one side only"
            )
        return ", ".join(reasons) or "somebody else asked the replicas, or rows are missing"


def agreements(
    connection: Connection, monitoring: Monitoring, question: Question
) -> list[Agreement]:
    """Compare, model by model; choose a time at whose edges nothing runs.

    Raises MonitoringError.
    """
    columns = USAGE.c
    since = question.since
    if since is None:
        since = connection.scalar(select(func.min(columns.time))) or datetime.now(UTC)
        since = since if since.tzinfo else since.replace(tzinfo=UTC)
    now = datetime.now(UTC)
    until = min(question.until or now, now)
    query = (
        select(
            columns.model,
            func.coalesce(func.sum(columns.prompt_tokens), 0),
            func.coalesce(func.sum(columns.completion_tokens), 0),
            func.count() - func.count(columns.completion_tokens),
            func.sum(case((columns.attempts > 1, 1), else_=0)),
            func.sum(case((columns.state != "done", 1), else_=0)),
        )
        .where(*conditions(question))
        .group_by(columns.model)
        .order_by(columns.model)
    )
    counted = {
        kind: _counted(monitoring, name, int(since.timestamp()), int(until.timestamp()) + 1)
        for kind, name in _COUNTERS.items()
    }
    found = []
    for model, prompt, completion, unknown, again, early in connection.execute(query):
        for kind, table in (("prompt", prompt), ("completion", completion)):
            found.append(
                Agreement(
                    model=model,
                    kind=kind,
                    table=int(table),
                    replicas=counted[kind].get(model),
                    unknown=int(unknown),
                    again=int(again or 0),
                    ended_early=int(early or 0),
                )
            )
    return found


def _counted(monitoring: Monitoring, counter: str, start: int, end: int) -> dict[str, int]:
    """Return how far a counter went, by model: exact, where increase() would extrapolate."""
    samples: dict[tuple[tuple[str, str], ...], list[float]] = {}
    step = _HOURS_AT_ONCE * 3600
    for at in range(start, end, step):
        for series in monitoring.samples(counter, at, min(end, at + step)):
            name = tuple(sorted(series.labels.items()))
            samples.setdefault(name, []).extend(
                value for moment, value in series.points if at < moment
            )
    # A counter that was there before began the time at its last count, any other at nothing.
    before = {
        tuple(sorted(series.labels.items())): series.points[-1][1]
        for series in monitoring.samples(counter, start - _REMEMBERED, start)
        if series.points
    }
    sums: dict[str, int] = {}
    for name, values in samples.items():
        model = dict(name).get(_MODEL, "")
        sums[model] = sums.get(model, 0) + round(_gone(before.get(name, 0.0), values))
    return sums


def _gone(last: float, values: Iterable[float]) -> float:
    """Return the sum of a counter's steps; one that falls has begun anew, from nothing."""
    gone = 0.0
    for value in values:
        gone += value - last if value >= last else value
        last = value
    return gone
