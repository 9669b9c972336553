"""What a client asks for: a request body checked, stripped of what is ours, and rewritten."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from holdfast_gateway.api.errors import invalid

T = TypeVar("T")

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS)

# Fields by which the serving side is steered from inside the site. vLLM or smg would obey them.
INTERNAL_FIELDS = frozenset(
    {
        "priority",  # vLLM's scheduler: jump the queue
        "cache_salt",  # vLLM's prefix cache: read whether others sent a prompt
        "kv_transfer_params",  # vLLM: fetch KV blocks from an address
        "ec_transfer_params",  # the same for encoder outputs
        "request_id",  # vLLM: collide with another request
        "rid",  # the same in smg's dialect
        "data_parallel_rank",  # choose the replica
        "bootstrap_host",  # smg: address of a prefill worker
        "bootstrap_port",
        "bootstrap_room",
        "lora_path",  # smg: load an adapter from a path
        "session_params",
    }
)

_INPUT_FIELD = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input"}
_LONGEST_NAME = 256
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

    `size` is the body's length in bytes; `max_tokens` what the client asked for at most, for each
    choice; `prompts` how many there are.
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
        """Return the body for the upstream, with what the site itself says."""
        return _dump({**self.request, **steering})


def parse(endpoint: str, body: bytes) -> Call:
    """Check a body and prepare what the upstream gets; raise ApiError 400 naming the field.

    The upstream gets the object we understood, not the bytes: two parsers then cannot read a
    doubled key differently.
    """
    request = _load(body)
    model = _required(request, "model", (str,))
    if not 0 < len(model) <= _LONGEST_NAME or not model.isprintable():
        raise invalid("'model' is not the name of a model.", code="invalid_value", param="model")
    _check_input(endpoint, request)
    stream = _optional(request, "stream", bool, default=False)
    choices = _optional(request, "n", int, default=1)
    if choices < 1:
        raise invalid("'n' must be at least 1.", code="invalid_value", param="n")
    options = _optional(request, "stream_options", dict, default={})
    if options and not stream:
        raise invalid(
            "'stream_options' is only allowed with 'stream': true.",
            code="invalid_value",
            param="stream_options",
        )
    usage = _optional(options, "include_usage", bool, default=False)
    continuous = usage and _optional(options, "continuous_usage_stats", bool, default=False)
    for field in INTERNAL_FIELDS & request.keys():
        del request[field]
    if stream:
        if endpoint == EMBEDDINGS:
            raise invalid("Embeddings cannot be streamed.", code="invalid_value", param="stream")
        request["stream_options"] = options | {
            "include_usage": True,
            "continuous_usage_stats": True,
        }
    max_tokens = _max_tokens(request)
    prompt = request.get("prompt")
    prompts = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    many_prompts = prompts is prompt
    return Call(
        endpoint=endpoint,
        model=model,
        request=request,
        size=len(body),
        max_tokens=max_tokens,
        prompts=len(prompts),
        stream=stream,
        wants_usage=usage,
        wants_continuous_usage=continuous,
        choices_per_prompt=choices,
        one_choice=choices == 1 and not many_prompts,
    )


def _max_tokens(request: dict[str, Any]) -> int | None:
    found = [
        _optional(request, field, int, default=0)
        for field in ("max_completion_tokens", "max_tokens")
        if request.get(field) is not None
    ]
    if any(each < 0 for each in found):
        raise invalid("'max_tokens' is negative.", code="invalid_value", param="max_tokens")
    return found[0] if found else None


def _load(body: bytes) -> dict[str, Any]:  # Any: JSON of a stranger, looked at field by field
    try:
        request = json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise invalid("The body is nested too deeply.", code="invalid_json") from error
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        reason = str(error).split(":")[0] if isinstance(error, UnicodeDecodeError) else str(error)
        raise invalid(f"The body is not valid JSON: {reason}.", code="invalid_json") from error
    if not isinstance(request, dict):
        raise invalid(f"The body must be a JSON object, not {_name(request)}.", code="invalid_json")
    return request


def _dump(request: dict[str, Any]) -> bytes:
    try:
        return json.dumps(request, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # 1e999 is read as infinity
        raise invalid("The body holds a number that is too large.", code="invalid_json") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


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


def _check_input(endpoint: str, request: dict[str, Any]) -> None:
    field = _INPUT_FIELD[endpoint]
    types = (list,) if endpoint == CHAT else (str, list)
    value = _required(request, field, types)
    if value == []:
        raise invalid(f"'{field}' is empty.", code="invalid_value", param=field)
    if endpoint != CHAT:
        return
    for at, message in enumerate(value):
        if type(message) is not dict:
            _wrong_type(f"messages[{at}]", "an object", message)
        if type(message.get("role")) is not str:
            _wrong_type(f"messages[{at}].role", "a string", message.get("role"))
