"""Bounds on what an answer may be made to look like: JSON schemas, grammars, lists of choices.

A replica compiles them before it generates, all of a replica's in one thread: measured with vLLM
0.32, one list of 2,000 choices of 1,000 characters kept every other JSON request of that replica
waiting for more than four minutes, an enum of 20,000 values for eight seconds.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from holdfast_gateway.api.errors import invalid

_LARGEST_FORMAT = 64 * 1024
_LARGEST_TOOLS = 512 * 1024
_FORMATS = ("response_format", "structured_outputs", "text", "output_config")
_LARGEST = dict.fromkeys(_FORMATS, _LARGEST_FORMAT) | {"tools": _LARGEST_TOOLS}
_MOST_VALUES = 1000
_LONGEST_PATTERN = 4096
_VALUES = ("enum", "choice")
_PATTERNS = ("pattern", "regex", "grammar", "whitespace_pattern")


def check(request: Mapping[str, Any]) -> None:  # Any: JSON of a stranger
    """Raise ApiError 400 for a constraint that would take a replica long to prepare."""
    for field, largest in _LARGEST.items():
        if field in request:
            _check(field, request[field], largest)


def _check(field: str, value: object, largest: int) -> None:
    if not isinstance(value, dict | list):
        return
    if len(json.dumps(value)) > largest:
        raise _too_much(field, f"is larger than {largest} bytes")
    values = patterns = 0
    for key, found in _entries(value):
        if key in _VALUES and isinstance(found, list):
            values += len(found)
        elif key in _PATTERNS and isinstance(found, str):
            patterns += len(found)
    if values > _MOST_VALUES:
        raise _too_much(field, f"names more than {_MOST_VALUES} values to choose from")
    if patterns > _LONGEST_PATTERN:
        raise _too_much(field, f"holds patterns of more than {_LONGEST_PATTERN} characters")


def _entries(value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, object]]:
    """Return every key and value inside, at any depth."""
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield from each.items()
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _too_much(field: str, what: str) -> Exception:
    return invalid(f"'{field}' {what}.", code="constraint_too_large", param=field)
