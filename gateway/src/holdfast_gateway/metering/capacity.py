"""How much capacity there was: the hours for which replicas of a model were up."""

from collections import defaultdict
from datetime import UTC, datetime

from sqlalchemy import Engine, func, select

from holdfast_gateway.metering.monitoring import Monitoring
from holdfast_gateway.metering.reports import Question
from holdfast_gateway.metering.usage import USAGE

_STEP = 300
_STEPS_AT_ONCE = 10_000
# One series for each engine of each replica; a replica counts once, as often as it was scraped.
_UP = "count by (model_name) (count by (model_name, instance) (vllm:num_requests_running))"


def replica_hours(engine: Engine, monitoring: Monitoring, question: Question) -> dict[str, float]:
    """Return the hours of each model's replicas in the time asked for: two for an hour are two.

    Looked at every five minutes. Raises MonitoringError.
    """
    since = question.since
    if since is None:
        with engine.connect() as connection:
            since = connection.scalar(select(func.min(USAGE.c.time)))
    if since is None:
        return {}
    start = int((since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp())
    end = int(min(datetime.now(UTC), question.until or datetime.now(UTC)).timestamp())
    hours: dict[str, float] = defaultdict(float)
    while start < end:
        last = min(end - 1, start + (_STEPS_AT_ONCE - 1) * _STEP)
        for series in monitoring.steps(_UP, start, last, _STEP):
            model = series.labels.get("model_name", "")
            for at, replicas in series.points:
                hours[model] += replicas * min(_STEP, end - at) / 3600
        start += _STEPS_AT_ONCE * _STEP
    return dict(hours)
