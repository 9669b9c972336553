"""Which requests are quick: told by the size of the prompt and by what was asked for."""

from enum import IntEnum

from holdfast_gateway.api.calls import Call
from holdfast_gateway.api.endpoints import ENDPOINTS
from holdfast_gateway.fairness.settings import FairnessSettings

_BYTES_PER_TOKEN = 4
_UNSAID_ANSWER = 512
"""Tokens that an answer without a bound is reckoned at, for shares only."""


class Lane(IntEnum):
    """Short requests go first."""

    SHORT = 0
    LONG = 1


def lane_of(call: Call, settings: FairnessSettings) -> Lane:
    """Return the lane of a call. An answer without a bound may be long, so it counts as long."""
    if call.size > settings.short_prompt_tokens * _BYTES_PER_TOKEN:
        return Lane.LONG
    if not ENDPOINTS[call.endpoint].streams:  # vectors, numbers
        return Lane.SHORT
    if call.max_tokens is None:
        return Lane.LONG
    short = call.max_tokens * seats_of(call) <= settings.short_answer_tokens
    return Lane.SHORT if short else Lane.LONG


def cost_of(call: Call) -> int:
    """Return what a call is charged to its team's share: estimated tokens, at least one."""
    prompt = call.size // _BYTES_PER_TOKEN
    if not ENDPOINTS[call.endpoint].streams:  # vectors, numbers
        return prompt + 1
    answer = _UNSAID_ANSWER if call.max_tokens is None else call.max_tokens
    return prompt + answer * seats_of(call) + 1


def seats_of(call: Call) -> int:
    """Return how many sequences of a replica a call takes."""
    return call.prompts * call.choices_per_prompt
