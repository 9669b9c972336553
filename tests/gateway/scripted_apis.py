"""The shapes of /v1/responses and /v1/messages, as vLLM 0.32 writes them, for the mock upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"

Event = dict[str, Any]


def prompt_of(path: str, body: dict[str, Any]) -> object:
    """Return the text that the mock takes its script from: what was said last."""
    said = body["input"] if path == RESPONSES else body["messages"]
    if isinstance(said, list):
        said = said[-1].get("content")
    if isinstance(said, list):
        said = said[-1].get("text")
    return said


def whole(path: str, body: dict[str, Any], words: list[str], prompt: int, cached: int) -> Event:
    if path == COUNT_TOKENS:
        return {"input_tokens": prompt, "context_management": {"original_input_tokens": prompt}}
    if path == RESPONSES:
        return _response(body, words, prompt, cached)
    return _message(body, words) | {"usage": _anthropic_usage(prompt, cached, len(words))}


def events(
    path: str, body: dict[str, Any], words: list[str], prompt: int, cached: int
) -> Iterator[tuple[bool, Event]]:
    """Return a stream's events, each with whether it carries a token."""
    if path == RESPONSES:
        yield from _response_events(body, words, prompt, cached)
    else:
        yield from _message_events(body, words, prompt, cached)


def _tool(body: dict[str, Any]) -> str | None:
    tools = body.get("tools")
    return tools[0]["name"] if tools else None


def _response_events(
    body: dict[str, Any], words: list[str], prompt: int, cached: int
) -> Iterator[tuple[bool, Event]]:
    begun = _response(body, [], prompt, cached) | {
        "output": [],
        "status": "in_progress",
        "usage": None,
    }
    done = _response(body, words, prompt, cached)
    item = done["output"][0]
    at: Event = {"item_id": item["id"], "output_index": 0}
    numbered = 0

    def event(kind: str, **more: Any) -> Event:
        nonlocal numbered
        numbered += 1
        return {**more, "sequence_number": numbered - 1, "type": kind}

    yield False, event("response.created", response=begun)
    yield False, event("response.in_progress", response=begun)
    if _tool(body):
        opened = item | {"arguments": "", "status": "in_progress"}
        yield False, event("response.output_item.added", item=opened, output_index=0)
        for word in words:
            yield True, event("response.function_call_arguments.delta", delta=word, **at)
        arguments = {"arguments": "".join(words), "name": item["name"]}
        yield False, event("response.function_call_arguments.done", **arguments, **at)
    else:
        at["content_index"] = 0
        opened = item | {"content": [], "status": "in_progress"}
        part = item["content"][0]
        yield False, event("response.output_item.added", item=opened, output_index=0)
        yield (
            False,
            event("response.content_part.added", part=part | {"text": "", "logprobs": []}, **at),
        )
        for word in words:
            yield True, event("response.output_text.delta", delta=word, logprobs=[], **at)
        said = {"text": "".join(words), "logprobs": []}
        yield False, event("response.output_text.done", **said, **at)
        yield False, event("response.content_part.done", part=part, **at)
    yield False, event("response.output_item.done", item=item, output_index=0)
    yield False, event("response.completed", response=done)


def _response(body: dict[str, Any], words: list[str], prompt: int, cached: int) -> Event:
    text = "".join(words)
    part = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
    item: Event = {
        "id": "msg_1",
        "content": [part],
        "role": "assistant",
        "status": "completed",
        "type": "message",
    }
    if (name := _tool(body)) is not None:
        item = {
            "arguments": text,
            "call_id": "call_1",
            "name": name,
            "type": "function_call",
            "id": "fc_1",
            "status": "completed",
        }
    return {
        "id": "resp_1",
        "created_at": 1763625600,
        "incomplete_details": None,
        "instructions": None,
        "metadata": None,
        "model": body["model"],
        "object": "response",
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": body.get("tools", []),
        "top_p": 1.0,
        "background": False,
        "status": "completed",
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": len(words),
            "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0},
            "total_tokens": prompt + len(words),
        },
    }


def _message_events(
    body: dict[str, Any], words: list[str], prompt: int, cached: int
) -> Iterator[tuple[bool, Event]]:
    tool = _tool(body)
    # The first event does not know yet what was in the cache, as vLLM's does not.
    begun = {"input_tokens": prompt, "output_tokens": 0}
    message = _message(body, []) | {"content": [], "stop_reason": None, "usage": begun}
    block = (
        {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {}}
        if tool
        else {"type": "text", "text": ""}
    )
    key, kind = ("partial_json", "input_json_delta") if tool else ("text", "text_delta")
    yield False, {"type": "message_start", "message": message}
    yield False, {"type": "content_block_start", "content_block": block, "index": 0}
    for word in words:
        yield (
            True,
            {"type": "content_block_delta", "delta": {"type": kind, key: word}, "index": 0},
        )
    yield False, {"type": "content_block_stop", "index": 0}
    yield (
        False,
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None},
            "usage": _anthropic_usage(prompt, cached, len(words)),
        },
    )
    yield False, {"type": "message_stop"}


def _message(body: dict[str, Any], words: list[str]) -> Event:
    block: Event = {"type": "text", "text": "".join(words)}
    if (tool := _tool(body)) is not None:
        block = {"type": "tool_use", "id": "toolu_1", "name": tool, "input": {"a": 1}}
    return {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "content": [block],
        "model": body["model"],
        "stop_reason": "tool_use" if tool else "end_turn",
    }


def _anthropic_usage(prompt: int, cached: int, completion: int) -> Event:
    return {
        "input_tokens": prompt - cached,
        "output_tokens": completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
    }
