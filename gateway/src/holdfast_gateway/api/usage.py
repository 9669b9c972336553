"""Reading what an upstream counted, in the words of each API."""

from collections.abc import Mapping

from holdfast_gateway.api.endpoints import ENDPOINTS, Generates, Shape
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.metering.tokens import read_usage as read_openai_usage


def read_whole(endpoint: str, answer: object) -> Tokens:
    """Return the count of a whole answer; unknown where it has none."""
    row = ENDPOINTS[endpoint]
    if row.generates is Generates.NUMBER:
        return Tokens(0, 0, 0)  # counted by the tokenizer alone: no model ran
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    return read_usage(row.shape, usage) if isinstance(usage, Mapping) else Tokens()


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
