"""Bounds on what an answer may be made to look like: JSON schemas, grammars, lists of choices.

A replica compiles them before it generates, all of a replica's in one thread: measured with vLLM
0.32, one list of 2,000 choices of 1,000 characters kept every other JSON request of that replica
waiting for more than four minutes, an enum of 20,000 values for eight seconds, a hundred strings
of different lengths for half a minute. What is allowed took two seconds at most, with a vocabulary
of 1,536 tokens on a busy machine.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from holdfast_gateway.api.errors import invalid

_LARGEST_FORMAT = 64 * 1024
_LARGEST_TOOLS = 512 * 1024
T = TypeVar("T")

_FORMATS = ("response_format", "structured_outputs", "text", "output_config")
_LARGEST = dict.fromkeys(_FORMATS, _LARGEST_FORMAT) | {"tools": _LARGEST_TOOLS}
_MOST_VALUES = 1000
_LONGEST_PATTERN = 4096
_MOST_REPEATS = 5000
_MOST_LENGTHS = 16
_STOPS = ("stop", "stop_sequences")
_MOST_STOPS = 64
_LONGEST_STOP = 1024
_REPEAT = re.compile(r"([0-9]+)\}")
_LENGTHS = ("minLength", "maxLength")
_VALUES = ("enum", "choice")
_PATTERNS = ("pattern", "regex", "grammar", "whitespace_pattern")


def check(request: Mapping[str, Any]) -> None:  # Any: JSON of a stranger
    """Raise ApiError 400 for a constraint that would take a replica long to prepare."""
    for field, largest in _LARGEST.items():
        if field in request:
            _check(field, request[field], largest)
    for field in _STOPS:
        _check_stops(field, request.get(field))


def _check_stops(field: str, value: object) -> None:
    """Bound what vLLM looks for in every answer after every token, all answers in one thread.

    The gateway too keeps as many events of a stream as a stop string is long, to go on from.
    """
    stops = value if isinstance(value, list) else [value]
    if len(stops) > _MOST_STOPS:
        raise _too_much(field, f"names more than {_MOST_STOPS} strings")
    if any(isinstance(each, str) and len(each) > _LONGEST_STOP for each in stops):
        raise _too_much(field, f"holds a string of more than {_LONGEST_STOP} characters")


def _check(field: str, value: object, largest: int) -> None:
    if not isinstance(value, dict | list):
        return
    if len(json.dumps(value)) > largest:
        raise _too_much(field, f"is larger than {largest} bytes")
    objects = list(_objects(value))
    values = sum(len(each) for each in _found(objects, _VALUES, list))
    if values > _MOST_VALUES:
        raise _too_much(field, f"names more than {_MOST_VALUES} values to choose from")
    patterns = _found(objects, _PATTERNS, str)
    if sum(map(len, patterns)) > _LONGEST_PATTERN:
        raise _too_much(field, f"holds patterns of more than {_LONGEST_PATTERN} characters")
    if sum(int(most) for each in patterns for most in _REPEAT.findall(each)) > _MOST_REPEATS:
        raise _too_much(field, f"holds patterns that repeat more than {_MOST_REPEATS} times")
    lengths = {repr([each.get(key) for key in _LENGTHS]) for each in objects}
    if len(lengths) > _MOST_LENGTHS + 1:  # one for those without
        raise _too_much(
            field, f"holds more than {_MOST_LENGTHS} different pairs of minLength and maxLength"
        )


def _found(objects: list[dict[str, Any]], keys: tuple[str, ...], kind: type[T]) -> list[T]:
    """Return what stands under any of the keys and is of a kind."""
    return [found for each in objects for key in keys if isinstance(found := each.get(key), kind)]


def _objects(value: dict[str, Any] | list[Any]) -> Iterator[dict[str, Any]]:
    """Return every object inside, at any depth."""
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _too_much(field: str, what: str) -> Exception:
    return invalid(f"'{field}' {what}.", code="constraint_too_large", param=field)
