"""Reading what an upstream counted, in the words of each API."""

import json
from collections.abc import Mapping

from holdfast_gateway.api.endpoints import ENDPOINTS, Generates, Shape
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.metering.tokens import read_usage as read_openai_usage

_KEY = b'"usage":'
_LONGEST_USAGE = 4096
_LONG = 1 << 20
_DECODER = json.JSONDecoder()


def read_whole(endpoint: str, body: bytes) -> Tokens:
    """Return the count of a whole answer, unknown where it has none; ValueError if it is no JSON.

    One of megabytes, such as log probabilities of many choices, is not read as a whole: every
    other answer would wait for it.
    """
    row = ENDPOINTS[endpoint]
    usage = _last_usage(body) if len(body) > _LONG and row.shape is Shape.OPENAI else None
    if usage is None:
        answer = json.loads(body)
        usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if row.generates is Generates.NUMBER:
        return Tokens(0, 0, 0)  # counted by the tokenizer alone: no model ran
    return read_usage(row.shape, usage) if isinstance(usage, Mapping) else Tokens()


def _last_usage(body: bytes) -> object:
    """Find the usage in an answer of OpenAI's shape; None where it has to be looked for.

    A key with its quotes bare cannot stand inside a JSON string, and in this shape nothing that a
    client wrote comes back but in strings. A token of that name has a number.
    """
    at = body.rfind(_KEY)
    while at >= 0:
        begin = at + len(_KEY)
        try:
            text = body[begin : begin + _LONGEST_USAGE].decode(errors="replace").lstrip()
            found, _ = _DECODER.raw_decode(text)
        except ValueError:
            return None
        if isinstance(found, dict):
            return found
        at = body.rfind(_KEY, 0, at)
    return None


def read_usage(shape: Shape, usage: Mapping[str, object]) -> Tokens:
    """Return the count of a usage object."""
    if shape is Shape.OPENAI:
        return read_openai_usage(usage)
    prompt, completion = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    if shape is Shape.RESPONSES:
        details = usage.get("input_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
        return Tokens(prompt, cached, completion)
    # Anthropic's input_tokens are those that the cache had nothing to do with.
    cached = _count(usage.get("cache_read_input_tokens"))
    created = _count(usage.get("cache_creation_input_tokens"))
    if prompt is not None:
        prompt += (cached or 0) + (created or 0)
    return Tokens(prompt, cached, completion)


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
