"""What the gateway knows of smg, the load balancer of a pool. Another one would be told here.

smg names the replica in a response header, marks its own errors with a code, and lists its workers
at /workers. It takes no order to avoid a replica. What it does take, found by experiment and held
by tests/gateway/chain/test_balancer.py: under its cache_aware policy a prompt goes where its
beginning was served before, and one whose beginning was served nowhere goes to the healthy replica
with the fewest requests in flight. The header x-smg-routing-tokens stands for the prompt in this
decision, so that a second attempt with a beginning nobody ever had leaves the replica that holds
the first.
"""

import json
import secrets
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

WORKERS_PATH = "/workers"

_REPLICA = "x-smg-routed-worker-id"
_ERROR_CODE = "x-smg-error-code"
_ELSEWHERE = "x-smg-routing-tokens"
_ELSEWHERE_LENGTH = 32
# It refuses for everybody: asking again at once changes nothing.
_SHEDS = frozenset({"worker_overload_protection_shed", "admission_queue_timeout"})
NOBODY_THERE = frozenset({"no_available_workers", "model_not_found"})
NOT_REACHED = frozenset({"call_upstream_connection_failed"})


class Again(Enum):
    """Whether an attempt that failed before the first byte can be made again."""

    NO = "no"
    ELSEWHERE = "elsewhere"
    LATER = "later"
    """Nobody got it: a balancer, or all replicas of a pool, are away for a moment."""


class Workers(NamedTuple):
    """The replicas a balancer routes to, by address, and those it would not use now."""

    all: frozenset[str]
    sick: frozenset[str]


def headers(request_id: str, *, elsewhere: bool) -> dict[str, str]:
    """Return the headers of a request; `elsewhere` asks for another replica than the first had.

    They are ours alone: nothing of the client's passes, neither its Authorization nor a header
    that smg would obey.
    """
    sent = {
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "holdfast-gateway",
        "X-Request-Id": request_id,
    }
    if elsewhere:
        beginning = (str(secrets.randbits(31)) for _ in range(_ELSEWHERE_LENGTH))
        sent[_ELSEWHERE] = ",".join(beginning)
    return sent


def replica_of(answer: Mapping[str, str]) -> str | None:
    """Return which replica answers, as host:port, from the headers of the answer."""
    named = answer.get(_REPLICA)
    return None if named is None else _address(named)


def again_after(status: int, answer: Mapping[str, str]) -> Again:
    """Say whether an answer that is an error may be asked for again, from status and headers.

    Only where smg says that it is its own: what a replica answered, smg has tried elsewhere.
    """
    code = answer.get(_ERROR_CODE)
    if code is None or code in _SHEDS:
        return Again.NO
    return Again.LATER if status >= 500 or code in NOBODY_THERE else Again.NO


def read_workers(body: bytes) -> Workers:
    """Read the answer of WORKERS_PATH; raise ValueError if it is none."""
    listed = json.loads(body)
    try:
        health = {_address(each["url"]): bool(each["is_healthy"]) for each in listed["workers"]}
    except (KeyError, TypeError) as error:
        msg = "the balancer's list of workers has another shape"
        raise ValueError(msg) from error
    return Workers(frozenset(health), frozenset(name for name, well in health.items() if not well))


def _address(url: object) -> str:
    if not isinstance(url, str):
        msg = "an address is not a string"
        raise TypeError(msg)
    return url.partition("://")[2] or url
