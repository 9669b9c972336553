"""The endpoints that ask a model: what is different about each, in one table.

An endpoint is added by one row here, one class of errors in `errors` and one view in `views` where
its shape is a new one. The shapes are those of vLLM 0.32; smg passes them on unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from starlette.types import Scope

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

STEERING = frozenset({"priority", "cache_salt"})
"""The fields by which the gateway steers a replica."""


class Shape(Enum):
    """The API whose words an answer speaks."""

    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


class Generates(Enum):
    """What an answer consists of."""

    TEXT = "text"
    VECTORS = "vectors"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    `messages` tells whether the input is a list of objects with a role, `max_tokens` the fields
    that bound an answer. `steering` are those of STEERING that can be said there: smg
    refuses a request with a field that it does not know.
    """

    path: str
    shape: Shape
    input: str
    input_types: tuple[type, ...]
    generates: Generates = Generates.TEXT
    messages: bool = False
    max_tokens: tuple[str, ...] = ()
    max_tokens_required: bool = False
    choices: bool = False
    usage_on_request: bool = False
    steering: frozenset[str] = STEERING

    @property
    def streams(self) -> bool:
        """Whether an answer can be had part by part."""
        return self.generates is Generates.TEXT


ENDPOINTS: Mapping[str, Endpoint] = {
    each.path: each
    for each in (
        Endpoint(
            path=CHAT,
            shape=Shape.OPENAI,
            input="messages",
            input_types=(list,),
            messages=True,
            max_tokens=("max_completion_tokens", "max_tokens"),
            choices=True,
            usage_on_request=True,
        ),
        Endpoint(
            path=COMPLETIONS,
            shape=Shape.OPENAI,
            input="prompt",
            input_types=(str, list),
            max_tokens=("max_tokens",),
            choices=True,
            usage_on_request=True,
        ),
        Endpoint(
            path=EMBEDDINGS,
            shape=Shape.OPENAI,
            input="input",
            input_types=(str, list),
            generates=Generates.VECTORS,
        ),
        Endpoint(
            path=RESPONSES,
            shape=Shape.RESPONSES,
            input="input",
            input_types=(str, list),
            max_tokens=("max_output_tokens",),
            # smg 1.13 refuses cache_salt here and takes a priority of 32 bits only.
            steering=frozenset(),
        ),
        Endpoint(
            path=MESSAGES,
            shape=Shape.ANTHROPIC,
            input="messages",
            input_types=(list,),
            messages=True,
            max_tokens=("max_tokens",),
            max_tokens_required=True,
            steering=frozenset({"cache_salt"}),  # vLLM has no priority in this API
        ),
        Endpoint(
            path=COUNT_TOKENS,
            shape=Shape.ANTHROPIC,
            input="messages",
            input_types=(list,),
            messages=True,
            generates=Generates.NUMBER,
            steering=frozenset(),
        ),
    )
}


def shape_of(path: str, headers: Mapping[str, str]) -> Shape:
    """Return the shape of errors for a request, whether or not its path exists."""
    if path in ENDPOINTS:
        return ENDPOINTS[path].shape
    if path.startswith(MESSAGES + "/") or "anthropic-version" in headers:
        return Shape.ANTHROPIC
    return Shape.OPENAI


def spelled(path: str, scope: Scope) -> bool:
    """Tell whether a request spells a path as it is, without %2f for a slash.

    What stands in front of the gateway tells paths apart before they are decoded.
    """
    raw: bytes = scope.get("raw_path") or path.encode()
    return raw.partition(b"?")[0] == path.encode()
