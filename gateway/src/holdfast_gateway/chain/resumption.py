"""Going on with a stream whose replica died: from the token ids so far, in the client's shape.

The rest is asked for with the ids of prompt and answer as the prompt, which is exact: no text is
tokenized a second time. vLLM takes them at /v1/completions too, but smg refuses them there; so they
go to /v1/chat/completions, as the ids that one stage of vLLM hands to the next. Where that would
not give the same answer, because more than the tokens decides how it goes on, or because the text
is read by a parser, it is not done.
"""

import json
from collections.abc import Mapping
from typing import Any

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, ENDPOINTS, Call
from holdfast_gateway.chain.trace import Point, Trace

_DEFAULT_COMPLETION_TOKENS = 16  # what vLLM takes where /v1/completions does not say
# What decides on the next token alike before and after: it is handed on.
_SAMPLING = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "logit_bias"),
        *("stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos"),
        *("allowed_token_ids", "skip_special_tokens", "spaces_between_special_tokens"),
        *("user", "session_id", "stream_interval"),
    }
)
# What has done its work once the prompt's token ids are known, or is said anew.
_SPENT = frozenset(
    {
        *("messages", "prompt", "model", "stream", "stream_options", "return_token_ids"),
        *("max_tokens", "max_completion_tokens", "min_tokens"),
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
        *("chat_template", "chat_template_kwargs", "documents"),
        *("truncate_prompt_tokens", "truncation_side"),
        *("metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    }
)
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),  # else the tokens so far would no longer count: they are prompt now
    "frequency_penalty": (0,),
    "top_logprobs": (0,),
    "n": (1,),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),  # without tools it says nothing
    "parallel_tool_calls": (True,),
    "include_reasoning": (True,),
}
_LONGEST_TOKEN = 512

ENDPOINT = CHAT
"""Where a continuation is asked for, whatever its stream began with."""


class MismatchError(Exception):
    """Another replica goes on in other words: the stream cannot be continued."""


def trace_of(call: Call) -> Trace | None:
    """Return an empty trace for a stream that can be resumed, None for one that cannot."""
    request = call.request
    if not call.stream or not call.one_choice or call.endpoint not in {CHAT, COMPLETIONS}:
        return None
    if call.endpoint == CHAT and not all(map(_is_text, request["messages"])):
        return None
    if any(not _is_neutral(name, value) for name, value in request.items()):
        return None
    stops = request.get("stop") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        return None
    reach = max((len(each) - 1 for each in stops), default=0)
    return Trace(
        held=0 if request.get("include_stop_str_in_output") else reach,
        reach=reach,
        greedy=request.get("temperature") == 0 or request.get("top_k") == 1,
    )


def _is_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return all(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return content is None or isinstance(content, str)


def _is_neutral(name: str, value: object) -> bool:
    if name in _SAMPLING or name in _SPENT:
        return True
    if name in _NEUTRAL:
        return value is None or value in _NEUTRAL[name]
    return value is None or value is False or value in ([], {})


def continuation(
    call: Call, trace: Trace, point: Point, steering: Mapping[str, object]
) -> dict[str, Any]:
    """Return the body that asks ENDPOINT for the rest."""
    asked = _asked(call, steering)
    ours = ENDPOINTS[ENDPOINT].steering & steering.keys()
    body = {name: call.request[name] for name in _SAMPLING & call.request.keys()}
    least = call.request.get("min_tokens")
    if isinstance(least, int) and least > point.tokens:
        body["min_tokens"] = least - point.tokens
    if asked is not None:
        body["max_tokens"] = asked - point.tokens
    return body | {
        "model": call.model,
        "messages": [{"role": "user", "content": ""}],  # not read where there are ids
        "kv_transfer_params": {"prompt_token_ids": ids_before(trace, point)},
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "return_token_ids": True,
        **{name: steering[name] for name in ours},
    }


def ids_before(trace: Trace, point: Point) -> list[int]:
    """Return the token ids of the prompt, and of the answer up to a point."""
    return trace.prompt_ids + trace.ids(point.tokens)


def _asked(call: Call, steering: Mapping[str, object]) -> int | None:
    """Return what bounds the answer: the site's word, else the client's, as vLLM reads it."""
    fields = ENDPOINTS[call.endpoint].max_tokens
    for said in (steering, call.request):
        for name in fields:
            bound = said.get(name)
            if isinstance(bound, int):
                return bound
    return _DEFAULT_COMPLETION_TOKENS if call.endpoint == COMPLETIONS else None


class Retelling:
    """Turns the events of a continuation into those the first replica would have sent.

    What the client has already is taken out, after it was compared: MismatchError if it differs.
    """

    def __init__(self, call: Call, trace: Trace, point: Point) -> None:
        self._chat = call.endpoint == CHAT
        self._trace = trace
        self._before = point.tokens
        self._ids = ids_before(trace, point)
        self._begun = False
        self._known = point.known_text

    def retell(self, data: bytes) -> tuple[bytes | None, bool]:
        """Return the event in the client's shape, None for none, and whether it says more."""
        try:
            told = json.loads(data)
            choices = told["choices"]
            usage = told["usage"]
            completion = usage["completion_tokens"] + self._before
        except (ValueError, TypeError, KeyError):
            return data, True  # an error, or nonsense: the view says which
        if not choices:
            return self._event([], completion), True
        choice = choices[0]
        delta = choice["delta"]
        ids = choice.get("token_ids") or []
        if not self._begun:
            self._check_beginning(told, delta, ids)
            return None, False
        if not delta.keys() <= {"role", "content"}:
            msg = "what it says is read by a parser"
            raise MismatchError(msg)
        text = delta.get("content") or ""
        if len(text) > _LONGEST_TOKEN * max(1, len(ids)):
            # Half a character at the end of the prompt makes vLLM repeat the prompt.
            msg = "more text than its tokens can hold"
            raise MismatchError(msg)
        new = self._new(text)
        if self._known and choice["finish_reason"] is not None:
            msg = "an earlier end than before"
            raise MismatchError(msg)
        said = {"delta": {"content": new}} if self._chat else {"text": new}
        end: dict[str, Any] = {"logprobs": None, "finish_reason": choice["finish_reason"]}
        if not self._chat or end["finish_reason"] is not None:
            end["stop_reason"] = choice.get("stop_reason")
        if not self._chat:
            end["prompt_token_ids"] = None
        retold = {"index": 0, **said, **end, "token_ids": ids}
        says = bool(new) or end["finish_reason"] is not None or not text
        return self._event([retold], completion), says

    def _check_beginning(
        self, told: Mapping[str, object], delta: Mapping[str, object], ids: list[int]
    ) -> None:
        """Take how each chat begins; it says what was taken as the prompt."""
        if "role" not in delta or ids or told.get("prompt_token_ids") != self._ids:
            msg = "it began from another prompt"
            raise MismatchError(msg)
        self._begun = True

    def _new(self, text: str) -> str:
        both = min(len(text), len(self._known))
        if text[:both] != self._known[:both]:
            msg = "other words than before"
            raise MismatchError(msg)
        self._known = self._known[both:]
        return text[both:]

    def _event(self, choices: list[dict[str, Any]], completion: int) -> bytes:
        return event_of(self._trace, choices, completion)


def event_of(trace: Trace, choices: list[dict[str, Any]], completion: int) -> bytes:
    """Return an event of the stream that a trace was made of, its usage counted from the start."""
    usage = {
        "prompt_tokens": trace.prompt_tokens,
        "total_tokens": trace.prompt_tokens + completion,
        "completion_tokens": completion,
    }
    event = trace.head | {"choices": choices, "usage": usage}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
