"""What is known of a request: as it begins, as it ends, and what row and event that makes."""

from datetime import datetime
from typing import Final, Literal, NamedTuple

from holdfast_gateway.metering.usage import State, UsageRow

Event = dict[str, object]


class Opening(NamedTuple):
    """Who asks what, and what was decided. `time` is UTC, ISO 8601 with microseconds."""

    request_id: str
    time: str
    principal: str
    principal_kind: str
    owner: str | None
    token: str
    team: str | None
    session: str | None
    gateway: str
    model: str
    revision: str | None
    endpoint: str
    stream: bool
    allowed: bool
    policies: tuple[str, ...]
    policy_version: str
    reason: str


class Closing(NamedTuple):
    """What it came to. None is unknown; times are milliseconds, cost millionths of a currency."""

    status: int
    state: State | Literal["refused"]
    error_code: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    queue_ms: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    duration_ms: float = 0.0
    replica: str | None = None
    attempts: int | None = None
    cost: int | None = None
    currency: str | None = None


LOST = Closing(status=0, state="lost", error_code="gateway_killed")
"""Of a request that was begun and whose end nobody saw: its tokens are unknown, not zero."""

REFUSED: Final = "refused"


def row_of(opening: Opening, closing: Closing) -> UsageRow | None:
    """Return the row of a request; None for one that was refused."""
    if closing.state == REFUSED:
        return None
    return UsageRow(
        request_id=opening.request_id,
        time=datetime.fromisoformat(opening.time),
        principal=opening.principal,
        principal_kind=opening.principal_kind,
        owner=opening.owner,
        token=opening.token,
        team=opening.team,
        session=opening.session,
        gateway=opening.gateway,
        model=opening.model,
        revision=opening.revision,
        endpoint=opening.endpoint,
        stream=opening.stream,
        status=closing.status,
        state=closing.state,
        error_code=closing.error_code,
        prompt_tokens=closing.prompt_tokens,
        cached_tokens=closing.cached_tokens,
        completion_tokens=closing.completion_tokens,
        queue_ms=closing.queue_ms,
        ttft_ms=closing.ttft_ms,
        itl_ms=closing.itl_ms,
        duration_ms=closing.duration_ms,
        replica=closing.replica,
        host=host_of(closing.replica),
        attempts=closing.attempts,
        cost=closing.cost,
        currency=closing.currency,
    )


def event_of(opening: Opening, closing: Closing) -> Event:
    """Return the ledger event of a request: never what was asked or answered."""
    return {
        "action": "model.infer",
        "request_id": opening.request_id,
        "began": opening.time,
        "gateway": opening.gateway,
        "principal": opening.principal,
        "principal_kind": opening.principal_kind,
        "owner": opening.owner,
        "token": opening.token,
        "team": opening.team,
        "session": opening.session,
        "model": opening.model,
        "revision": opening.revision,
        "endpoint": opening.endpoint,
        "stream": opening.stream,
        "allowed": opening.allowed,
        "policies": list(opening.policies),
        "policy_version": opening.policy_version,
        "reason": opening.reason,
        "status": closing.status,
        "state": closing.state,
        "error_code": closing.error_code,
        "prompt_tokens": closing.prompt_tokens,
        "cached_tokens": closing.cached_tokens,
        "completion_tokens": closing.completion_tokens,
        # whole: a ledger writes an event without fractions ten times as fast
        "queue_ms": None if closing.queue_ms is None else round(closing.queue_ms),
        "replica": closing.replica,
        "attempts": closing.attempts,
        "cost": closing.cost,
        "currency": closing.currency,
    }


def host_of(replica: str | None) -> str | None:
    """Return the host of a replica that is named host:port."""
    return replica.rpartition(":")[0].strip("[]") or None if replica else None
