"""What a client asks for: a request body checked, stripped of what is ours, and rewritten."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from holdfast_gateway.api import constraints, fields, structure
from holdfast_gateway.api.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    STEERING,
    Endpoint,
    Generates,
)
from holdfast_gateway.api.errors import invalid
from holdfast_gateway.api.fields import INTERNAL_FIELDS

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "EMBEDDINGS",
    "ENDPOINTS",
    "INTERNAL_FIELDS",
    "Call",
    "parse",
]

T = TypeVar("T")

_LONGEST_NAME = 256
_LONGEST_INTEGER = 100
_MOST_CHOICES = 128
_MOST_PROMPTS = 2048
_MOST_MESSAGES = 16384
_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}


@dataclass(frozen=True)
class Call:
    """One checked request. `request` is the body without what only the site may say.

    `endpoint` is its path. `size` is the body's length in bytes; `max_tokens` what the client asked
    for at most, for each choice, None where it set no bound; `prompts` how many there are.
    """

    endpoint: str
    model: str
    request: dict[str, Any]  # Any: JSON of a stranger, looked at field by field
    size: int = 0
    max_tokens: int | None = None
    prompts: int = 1
    stream: bool = False
    wants_usage: bool = False
    wants_continuous_usage: bool = False
    choices_per_prompt: int = 1
    one_choice: bool = True

    def payload(self, steering: Mapping[str, object]) -> bytes:
        """Return the body for the upstream, with what the site itself says where it can be said."""
        unknown = STEERING - ENDPOINTS[self.endpoint].steering
        ours = {field: value for field, value in steering.items() if field not in unknown}
        return _dump({**self.request, **ours})


def parse(endpoint: str, body: bytes) -> Call:
    """Check a body and prepare what the upstream gets; raise ApiError 400 naming the field.

    The upstream gets the object we understood, not the bytes: two parsers then cannot read a
    doubled key differently.
    """
    try:
        return _parse(ENDPOINTS[endpoint], body)
    except RecursionError as error:
        raise invalid("The body is nested too deeply.", code="invalid_json") from error


def _parse(endpoint: Endpoint, body: bytes) -> Call:
    request = _load(body)
    model = _required(request, "model", (str,))
    if not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise invalid("'model' is not the name of a model.", code="invalid_value", param="model")
    _check_input(endpoint, request)
    stream = _optional(request, "stream", bool, default=False)
    if stream and not endpoint.streams:
        name = "Embeddings" if endpoint.generates is Generates.VECTORS else "This answer"
        raise invalid(f"{name} cannot be streamed.", code="invalid_value", param="stream")
    fields.check(endpoint.path, request)
    constraints.check(request)
    usage = continuous = False
    if endpoint.usage_on_request:
        usage, continuous = _ask_for_usage(request, stream=stream)
    choices = _optional(request, "n", int, default=1) if endpoint.choices else 1
    if not 1 <= choices <= _MOST_CHOICES:
        raise invalid(
            f"'n' must be at least 1 and at most {_MOST_CHOICES}.", code="invalid_value", param="n"
        )
    prompts = _prompts(endpoint, request, choices)
    return Call(
        endpoint=endpoint.path,
        model=model,
        request=request,
        size=len(body),
        max_tokens=_max_tokens(endpoint, request),
        prompts=1 if prompts is None else prompts,
        stream=stream,
        wants_usage=usage,
        wants_continuous_usage=continuous,
        choices_per_prompt=choices,
        one_choice=choices == 1 and prompts is None,
    )


def _ask_for_usage(request: dict[str, Any], *, stream: bool) -> tuple[bool, bool]:
    """Ask for usage in every event of a stream; return what of that the client asked for."""
    options = _optional(request, "stream_options", dict, default={})
    if options and not stream:
        raise invalid(
            "'stream_options' is only allowed with 'stream': true.",
            code="invalid_value",
            param="stream_options",
        )
    usage = _optional(options, "include_usage", bool, default=False)
    continuous = usage and _optional(options, "continuous_usage_stats", bool, default=False)
    if stream:
        asked = {"include_usage": True, "continuous_usage_stats": True}
        request["stream_options"] = options | asked
    return usage, continuous


def _prompts(endpoint: Endpoint, request: dict[str, Any], choices: int) -> int | None:
    """Return how many prompts a list holds, None where there is one and no list of them."""
    value = request[endpoint.input]
    if endpoint.messages or not isinstance(value, list) or isinstance(value[0], int | dict):
        return None
    if len(value) * choices > _MOST_PROMPTS:
        raise invalid(
            f"'{endpoint.input}' asks for more than {_MOST_PROMPTS} answers at once.",
            code="invalid_value",
            param=endpoint.input,
        )
    return len(value)


def _max_tokens(endpoint: Endpoint, request: dict[str, Any]) -> int | None:
    found = {
        field: _optional(request, field, int, default=0)
        for field in endpoint.max_tokens
        if request.get(field) is not None
    }
    for field, value in found.items():
        if not 0 <= value < 2**31:
            raise invalid(f"'{field}' is negative or too large.", code="invalid_value", param=field)
    if not found and endpoint.max_tokens_required:
        _required(request, endpoint.max_tokens[0], (int,))
    # Whichever of two wins at the replica, more than this it cannot be.
    return max(found.values(), default=None)


def _load(body: bytes) -> dict[str, Any]:  # Any: JSON of a stranger, looked at field by field
    structure.check_amount(body)
    try:
        # UTF-8 alone: in UTF-16 a text has fewer bytes than tokens, and bytes are what bounds it.
        request = json.loads(
            body.decode("utf-8-sig"), parse_constant=_no_constant, parse_int=_integer
        )
    except RecursionError as error:
        raise invalid("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        reason = str(error).split(":")[0] if isinstance(error, UnicodeDecodeError) else str(error)
        raise invalid(f"The body is not valid JSON: {reason}.", code="invalid_json") from error
    if not isinstance(request, dict):
        raise invalid(f"The body must be a JSON object, not {_name(request)}.", code="invalid_json")
    structure.check_depth(request, body)
    return request


def _dump(request: dict[str, Any]) -> bytes:
    try:
        return json.dumps(request, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # 1e999 is read as infinity
        raise invalid("The body holds a number that is too large.", code="invalid_json") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:  # reading them takes the square of their length
        raise ValueError(f"an integer has more than {_LONGEST_INTEGER} digits")
    return int(digits)


def _name(value: object) -> str:
    return _NAMES.get(type(value), "something else")


def _wrong_type(field: str, expected: str, value: object) -> NoReturn:
    raise invalid(
        f"Invalid type for '{field}': expected {expected}, but got {_name(value)} instead.",
        code="invalid_type",
        param=field,
    )


def _required(request: dict[str, Any], field: str, types: tuple[type, ...]) -> Any:  # noqa: ANN401  # as _load
    if field not in request:
        raise invalid(
            f"Missing required parameter: '{field}'.",
            code="missing_required_parameter",
            param=field,
        )
    value = request[field]
    if type(value) not in types:
        _wrong_type(field, " or ".join(_NAMES[kind] for kind in types), value)
    return value


def _optional(request: dict[str, Any], field: str, kind: type[T], *, default: T) -> T:
    value = request.get(field)
    if value is None:
        return default
    if type(value) is not kind:
        _wrong_type(field, _NAMES[kind], value)
    return value


def _check_input(endpoint: Endpoint, request: dict[str, Any]) -> None:
    field = endpoint.input
    value = _required(request, field, endpoint.input_types)
    if value == []:
        raise invalid(f"'{field}' is empty.", code="invalid_value", param=field)
    if isinstance(value, list) and isinstance(value[0], dict) and len(value) > _MOST_MESSAGES:
        raise invalid(
            f"'{field}' has more than {_MOST_MESSAGES} entries.", code="invalid_value", param=field
        )
    if not endpoint.messages:
        return
    for at, message in enumerate(value):
        if type(message) is not dict:
            _wrong_type(f"{field}[{at}]", "an object", message)
        if type(message.get("role")) is not str:
            _wrong_type(f"{field}[{at}].role", "a string", message.get("role"))
