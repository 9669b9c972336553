"""One request that may be answered, as far as it is known before it is: who asks what."""

from dataclasses import dataclass
from datetime import datetime

from holdfast_gateway.api.calls import Call
from holdfast_gateway.config import Model
from holdfast_trust.decisions import Decision
from holdfast_trust.principals import Principal


@dataclass(frozen=True, slots=True)
class Question:
    """What budgets, fairness, the kill switch and the record judge a request by.

    `started` is time.perf_counter() seconds, `time` the same moment in UTC. `team` is the one it is
    counted for, `session` the client's name for a transaction of several requests (X-Session-Id).
    `model` is None only where the decision is a refusal.
    """

    request_id: str
    started: float
    time: datetime
    principal: Principal
    team: str | None
    session: str | None
    call: Call
    model: Model | None
    decision: Decision
