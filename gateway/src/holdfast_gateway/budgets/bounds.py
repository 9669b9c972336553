"""How many tokens a request can come to at most, known before it is sent."""

from dataclasses import dataclass

from holdfast_gateway.api.calls import Call
from holdfast_gateway.api.endpoints import COMPLETIONS, ENDPOINTS, Generates
from holdfast_gateway.budgets.terms import BudgetRules

# What the API itself generates where /v1/completions names no max_tokens; vLLM does the same.
_COMPLETIONS_DEFAULT = 16
_PROMPT_FIELDS = ("messages", "input", "prompt", "system", "instructions")
_MEDIA = ("image", "audio", "video", "file", "document")
_UNTYPED = {"image_url", "video_url", "audio_url", "input_audio"}  # vLLM needs no type beside them
# A picture of a few hundred bytes can be as many tokens as a model takes of one.
_MEDIA_TOKENS = 16_384
_TOKENS_EACH_INPUT = 8  # special tokens around each text of a batch
_TOOLS_FACTOR = 2  # templates write JSON schemas anew, indented


@dataclass(frozen=True, slots=True)
class Bound:
    """Tokens a request can come to at most; of all its prompts and choices together.

    `each` is what one choice can generate at most, `context` what prompt and completion of one
    choice can be together, None where that is not known.
    """

    prompt: int
    each: int
    choices: int
    prompts: int
    context: int | None

    @property
    def completion(self) -> int:
        """Return what can be generated at most."""
        return self.each * self.choices

    @property
    def tokens(self) -> int:
        """Return the sum of both at most."""
        both = self.prompt + self.completion
        return both if self.context is None else min(both, self.context * self.choices)

    def counted(self, prompt: int) -> "Bound":
        """Return the bound once the prompt's true size is known; only of a single prompt."""
        each = self.each
        if self.context is not None:
            each = min(each, max(0, self.context - prompt))
        return Bound(prompt, each, self.choices, self.prompts, self.context)


def bound(call: Call, context: int | None, rules: BudgetRules) -> Bound:
    """Return the upper bound of a call; `context` is max_model_len of its model, if known.

    A token stands for at least one byte of text, so the body's size bounds the text's tokens.
    """
    endpoint, prompts = ENDPOINTS[call.endpoint], call.prompts
    if endpoint.generates is Generates.NUMBER:
        return Bound(0, 0, prompts, prompts, context)
    size = call.size * (_TOOLS_FACTOR if call.request.get("tools") else 1)
    media = sum(_media(call.request[field]) for field in _PROMPT_FIELDS if field in call.request)
    prompt = size + rules.template_tokens + _TOKENS_EACH_INPUT * prompts + media * _MEDIA_TOKENS
    if context is not None:
        prompt = min(prompt, context * prompts)
    if endpoint.generates is not Generates.TEXT:
        return Bound(prompt, 0, prompts, prompts, context)
    asked = _asked(call)
    if asked is None:
        asked = rules.completion_tokens if context is None else context
    asked = max(asked, 1)  # what only echoes is generated one token all the same
    each = asked if context is None else min(asked, context - 1)
    return Bound(prompt, each, prompts * call.choices_per_prompt, prompts, context)


def limits(call: Call, context: int | None, rules: BudgetRules) -> dict[str, object]:
    """Return what the upstream must be told so that the bound holds: a limit nobody else set."""
    endpoint = ENDPOINTS[call.endpoint]
    if endpoint.generates is not Generates.TEXT:
        return {}
    if call.endpoint == COMPLETIONS and "max_tokens" not in call.request:
        return {"max_tokens": _COMPLETIONS_DEFAULT}
    if context is None and _asked(call) is None:
        return {endpoint.max_tokens[-1]: rules.completion_tokens}
    return {}


def _asked(call: Call) -> int | None:
    if call.endpoint == COMPLETIONS and "max_tokens" not in call.request:
        return _COMPLETIONS_DEFAULT
    return call.max_tokens


def _media(value: object) -> int:
    """Count what is no text: its tokens have nothing to do with its bytes."""
    if isinstance(value, list):
        return sum(_media(each) for each in value if isinstance(each, dict | list))
    if not isinstance(value, dict):
        return 0
    kind = value.get("type")
    typed = isinstance(kind, str) and any(word in kind for word in _MEDIA)
    return int(typed or not _UNTYPED.isdisjoint(value)) + sum(
        _media(each) for each in value.values() if isinstance(each, dict | list)
    )
