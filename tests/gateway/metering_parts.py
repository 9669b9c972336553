"""Rows, openings and closings of requests, as tests of metering need them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from holdfast_gateway.metering.record import Closing, Opening
from holdfast_gateway.metering.usage import UsageRow

NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)
HOST = "serving-1.site.example"


def row(request_id: str, **more: Any) -> UsageRow:
    values: dict[str, Any] = {
        "request_id": request_id,
        "time": NOON,
        "principal": "ada",
        "principal_kind": "user",
        "owner": None,
        "token": "tok1",
        "team": "research",
        "session": None,
        "gateway": "gateway",
        "model": "org/model",
        "revision": "abc",
        "endpoint": "/v1/completions",
        "stream": True,
        "status": 200,
        "state": "done",
        "error_code": None,
        "prompt_tokens": 7,
        "cached_tokens": 4,
        "completion_tokens": 5,
        "queue_ms": 0.0,
        "ttft_ms": 100.0,
        "itl_ms": 10.0,
        "duration_ms": 1000.0,
        "replica": f"{HOST}:8400",
        "host": HOST,
        "attempts": 1,
        "cost": 1_000,
        "currency": "EUR",
    }
    return UsageRow(**(values | more))


def opening(number: int = 0, **more: Any) -> Opening:
    values: dict[str, Any] = {
        "request_id": f"req_{number:032x}",
        "time": NOON.isoformat(),
        "principal": "ada",
        "principal_kind": "user",
        "owner": None,
        "token": "tok1",
        "team": "research",
        "session": "s1",
        "gateway": "gateway",
        "model": "org/model",
        "revision": "abc",
        "endpoint": "/v1/completions",
        "stream": True,
        "allowed": True,
        "policies": ("model.team-infers",),
        "policy_version": "sha256:00",
        "reason": "",
    }
    return Opening(**(values | more))


def closing(**more: Any) -> Closing:
    values: dict[str, Any] = {"status": 200, "state": "done", "prompt_tokens": 7}
    values |= {"cached_tokens": 4, "completion_tokens": 5, "duration_ms": 1000.0}
    return Closing(**(values | more))
