"""Letting requests through to a pool: at once, in turn, or not now."""

import math
import time
from dataclasses import dataclass
from typing import Literal

from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.config import Config, Model, Pool
from holdfast_gateway.fairness.lanes import Lane, cost_of, lane_of, seats_of
from holdfast_gateway.fairness.salt import Salts, load_key
from holdfast_gateway.fairness.turnstile import (
    OverloadedError,
    Place,
    Team,
    Turnstile,
    size_of,
)
from holdfast_gateway.question import Question

_LONGEST_RETRY_SECONDS = 300


@dataclass(frozen=True, slots=True)
class LaneState:
    """One lane in front of one model in one pool: now, and since the start of this gateway."""

    model: str
    upstream: str
    lane: Literal["short", "long"]
    in_flight: int
    queued: int
    admitted: int
    shed: int


class Fairness:
    """The turnstiles in front of the pools, and what the gateway itself says to the replicas.

    Raises OSError when the key of the salts can be neither read nor made.
    """

    def __init__(self, config: Config) -> None:
        self._settings = config.fairness
        self._salts = Salts(load_key(config.salt_key))
        self._teams: dict[str, Team] = {}
        self._turnstiles: dict[tuple[str, str], Turnstile] = {}

    def steering(self, question: Question) -> dict[str, object]:
        """Return what the gateway itself puts into the body: priority, cache_salt.

        vLLM serves the lowest priority first and gives up the highest when its memory is full.
        Responses and messages carry none and stand at 0, so 0 is what everybody begins with.
        """
        lane = lane_of(question.call, self._settings)
        if question.team is not None:
            salt = self._salts.of("team", question.team)
        else:
            salt = self._salts.of("user", question.principal.name)
        return {"priority": int(lane is Lane.LONG), "cache_salt": salt}

    async def admit(self, question: Question) -> Place:
        """Wait for a place; raise ApiError 429 with an honest Retry-After if it would take long."""
        call, model = question.call, question.model
        if model is None:
            raise AssertionError("a refused question asks for no place")
        lane = lane_of(call, self._settings)
        try:
            return await self._turnstile(model, model.pool_of(question.team)).enter(
                self._team(question),
                lane,
                cost=cost_of(call),
                seats=seats_of(call),
                stream=call.stream,
            )
        except OverloadedError as error:
            raise _overloaded(model.id, error.seconds) from error

    def state(self) -> list[LaneState]:
        """Return every lane of every pool that was asked for something."""
        return [
            LaneState(
                model=model,
                upstream=upstream,
                lane="short" if lane is Lane.SHORT else "long",
                in_flight=traffic.in_flight,
                queued=traffic.queued,
                admitted=traffic.admitted,
                shed=traffic.shed,
            )
            for (model, upstream), turnstile in self._turnstiles.items()
            for lane, traffic in zip(Lane, turnstile.traffic, strict=True)
        ]

    def _team(self, question: Question) -> Team:
        # Who pays for themselves stands beside the teams as one of them.
        paid_by_team = question.team is not None
        name = f"team {question.team}" if paid_by_team else f"user {question.principal.name}"
        team = self._teams.get(name)
        if team is None:
            share = self._settings.teams.get(question.team or "") if paid_by_team else None
            team = Team(name)
            if share is not None:
                team.weight = share.weight
                team.cap = share.concurrency and self._part(share.concurrency)
            self._teams[name] = team
        return team

    def _turnstile(self, model: Model, pool: Pool) -> Turnstile:
        key = (model.id, pool.upstream)
        turnstile = self._turnstiles.get(key)
        if turnstile is None:
            settings = self._settings
            size = size_of(
                slots=self._part(pool.slots or settings.slots * pool.replicas),
                starting=self._part(settings.starting * pool.replicas),
                share=settings.short_share,
                ageing_seconds=settings.ageing_seconds,
                queue_seconds=(settings.short_queue_seconds, settings.queue_seconds),
                queue_length=settings.queue_length,
            )
            turnstile = self._turnstiles[key] = Turnstile(size, time.monotonic)
        return turnstile

    def _part(self, number: int) -> int:
        """Return this gateway's part of what all of them share."""
        return max(1, number // self._settings.gateways)


def _overloaded(model: str, seconds: float) -> ApiError:
    wait = min(max(1, math.ceil(seconds)), _LONGEST_RETRY_SECONDS)
    return ApiError(
        429,
        f"The servers of '{model}' are fully occupied. Try again in {wait} s.",
        code="overloaded",
        kind="rate_limit_exceeded",
        headers={"Retry-After": str(wait)},
    )
