"""JSON as strict readers take it: no key twice, no NaN, bounded numbers and nesting."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

from holdfast_model_registry.formats.observation import FormatError


def read_object(content: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in UTF-8 that the content is; FormatError says why it is none."""
    try:
        document = json.loads(
            content.decode("utf-8", "strict"),
            object_pairs_hook=unique_keys,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise FormatError(f"{what} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        cause = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FormatError(f"{what} is not JSON: {cause[:200]}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{what} is not a JSON object")
    return document


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of one object; readers differ in which of two like keys they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        counted = Counter(key for key, _ in pairs)
        raise FormatError(f"the key {shown(counted.most_common(1)[0][0])} stands twice")
    return found


def shown(text: str) -> str:
    """Return a name from a hostile file as a message can carry it."""
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(short)


def _no_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not a number of JSON")
