"""What of a body passes, what is taken out, and what is refused, at every endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import Call, parse
from holdfast_gateway.api.endpoints import (
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    EMBEDDINGS,
    ENDPOINTS,
    MESSAGES,
    RESPONSES,
)
from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.api.fields import INTERNAL_FIELDS

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "x"}]},
    COMPLETIONS: {"prompt": "x"},
    EMBEDDINGS: {"input": "x"},
    RESPONSES: {"input": "x"},
    MESSAGES: {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    COUNT_TOKENS: {"messages": [{"role": "user", "content": "x"}]},
}
EVERYWHERE = sorted(BODIES)
PICTURE = "data:image/png;base64,AAAA"


def ask(endpoint: str, **more: Any) -> Call:
    return parse(endpoint, json.dumps({"model": "m"} | BODIES[endpoint] | more).encode())


def payload(call: Call, **steering: object) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(call.payload(steering))
    return sent


def refused(endpoint: str, **more: Any) -> ApiError:
    with pytest.raises(ApiError) as refusal:
        ask(endpoint, **more)
    assert refusal.value.status == 400
    return refusal.value


def test_every_endpoint_is_tried() -> None:
    assert set(BODIES) == set(ENDPOINTS)


@pytest.mark.parametrize("endpoint", EVERYWHERE)
def test_internal_fields_are_taken_out_everywhere(endpoint: str) -> None:
    sent = payload(ask(endpoint, **dict.fromkeys(INTERNAL_FIELDS, "x")))
    assert not INTERNAL_FIELDS & sent.keys()


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (CHAT, {"priority", "cache_salt"}),
        (COMPLETIONS, {"priority", "cache_salt"}),
        (EMBEDDINGS, {"priority", "cache_salt"}),
        (RESPONSES, set()),
        (MESSAGES, {"cache_salt"}),
        (COUNT_TOKENS, set()),
    ],
)
def test_the_gateway_steers_with_what_the_endpoint_knows(endpoint: str, said: set[str]) -> None:
    ours = {"priority": 1, "cache_salt": "ours", "return_token_ids": True}
    sent = payload(ask(endpoint, priority=9, cache_salt="theirs"), **ours)
    assert {field: sent[field] for field in said} == {field: ours[field] for field in said}
    assert sent.keys() & {"priority", "cache_salt"} == said
    assert sent["return_token_ids"] is True  # asked for, not steered


@pytest.mark.parametrize("endpoint", EVERYWHERE)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chat_template", "{% for i in range(10**9) %}x{% endfor %}"),
        ("logits_processors", [{"qualname": "os.system"}]),
        ("prompt_embeds", "AAAA"),
        ("mm_processor_kwargs", {"max_pixels": 10**9}),
        ("media_io_kwargs", {"video": {"num_frames": 10**9}}),
        ("use_beam_search", True),
    ],
)
def test_what_no_client_may_ask_for(endpoint: str, field: str, value: object) -> None:
    refusal = refused(endpoint, **{field: value})
    assert (refusal.code, refusal.param) == ("unsupported_parameter", field)
    assert payload(ask(endpoint, **{field: None}))[field] is None


def test_a_template_does_not_come_in_by_its_options() -> None:
    refusal = refused(CHAT, chat_template_kwargs={"chat_template": "x"})
    assert refusal.param == "chat_template_kwargs.chat_template"
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    assert payload(ask(CHAT, **options))["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("endpoint", "field", "value"),
    [
        (RESPONSES, "background", True),
        (RESPONSES, "previous_response_id", "resp_1"),
        (RESPONSES, "conversation", {"id": "conv_1"}),
        (RESPONSES, "prompt", {"id": "pmpt_1"}),
        (MESSAGES, "mcp_servers", [{"type": "url", "url": "http://127.0.0.1:9", "name": "x"}]),
        (MESSAGES, "container", {"id": "x"}),
    ],
)
def test_what_needs_a_memory_or_another_server(endpoint: str, field: str, value: object) -> None:
    refusal = refused(endpoint, **{field: value})
    assert (refusal.code, refusal.param) == ("unsupported_parameter", field)


def test_a_response_is_never_kept() -> None:
    assert payload(ask(RESPONSES))["store"] is False
    assert payload(ask(RESPONSES, store=True))["store"] is False


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9"},
        {"type": "web_search"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
        {"type": ["function"]},
        {},
        "function",
    ],
)
def test_tools_that_another_server_would_run(tool: Any) -> None:
    function = {"type": "function", "name": "f", "parameters": {}}
    assert refused(RESPONSES, tools=[function, tool]).param == "tools[1].type"
    assert payload(ask(RESPONSES, tools=[function]))["tools"] == [function]


@pytest.mark.parametrize(
    ("endpoint", "part", "param"),
    [
        (CHAT, {"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}, "image_url"),
        (CHAT, {"type": "image_url", "image_url": "http://10.0.0.1/"}, "image_url"),
        (CHAT, {"image_url": "file:///etc/passwd"}, "image_url"),
        (CHAT, {"type": "audio_url", "audio_url": {"url": "HTTP://10.0.0.1/"}}, "audio_url"),
        (CHAT, {"type": "video_url", "video_url": {"url": ["x"]}}, "video_url"),
        (CHAT, {"type": "file", "file": {"file_id": "x"}}, "file"),
        (CHAT, {"type": "image_url", "image_url": None, "uuid": "theirs"}, "uuid"),
        (CHAT, {"image_url": PICTURE, "uuid": "theirs"}, "uuid"),
        (CHAT, {"type": "input_audio", "input_audio": None, "uuid": "theirs"}, "uuid"),
        (CHAT, {"type": "image_embeds", "image_embeds": "AAAA"}, None),
        (CHAT, {"image_embeds": {"a": "AAAA"}}, None),
        (CHAT, {"type": "prompt_embeds", "data": "AAAA"}, None),
        (RESPONSES, {"type": "input_image", "image_url": "http://10.0.0.1/"}, "image_url"),
        (RESPONSES, {"type": "input_image", "file_id": "file-1"}, "file_id"),
        (RESPONSES, {"type": "input_file", "file_url": "http://10.0.0.1/"}, "file_url"),
        (MESSAGES, {"type": "image", "source": {"type": "url", "url": "http://x/"}}, "source"),
        (MESSAGES, {"type": "image", "source": {"type": "file", "file_id": "x"}}, "source"),
        (COUNT_TOKENS, {"type": "image", "source": {"type": "url", "url": "x"}}, "source"),
    ],
)
def test_nothing_is_fetched_for_a_client(endpoint: str, part: Any, param: str | None) -> None:
    field = ENDPOINTS[endpoint].input
    at = f"{field}[0].content[1]" + (f".{param}" if param else "")
    text = {"type": "text", "text": "x"}
    said = [{"role": "user", "content": [text, part]}]
    assert refused(endpoint, **{field: said}).param == at
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [part]}
    said = [{"role": "user", "content": [nested]}]
    assert refused(endpoint, **{field: said}).code == "unsupported_parameter"


def test_what_a_tool_gave_back_in_a_response() -> None:
    part = {"type": "input_image", "image_url": "http://10.0.0.1/"}
    for output in ([part], part):
        item = {"type": "function_call_output", "call_id": "c", "output": output}
        assert refused(RESPONSES, input=[item]).code == "unsupported_parameter"


def test_a_second_input_field_hides_nothing() -> None:
    """vLLM reads 'messages' at /v1/embeddings too."""
    part = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}
    said = [{"role": "user", "content": [part]}]
    for endpoint in EVERYWHERE:
        assert refused(endpoint, messages=said).code == "unsupported_parameter"
    assert refused(MESSAGES, system=[part]).code == "unsupported_parameter"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "input_image", "image_url": PICTURE},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_data": PICTURE, "filename": "x"}},
        {"type": "input_image", "image_url": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"image_url": "http://x/"}},
        {"type": "text", "text": "see http://10.0.0.1/x.png"},
    ],
)
def test_media_in_the_body_and_addresses_in_words_pass(part: dict[str, Any]) -> None:
    said = [{"role": "user", "content": [part]}]
    assert payload(ask(CHAT, messages=said))["messages"] == said


@pytest.mark.parametrize(("depth", "passes"), [(95, True), (110, False), (900, False)])
def test_a_body_is_so_deep_and_no_deeper(depth: int, *, passes: bool) -> None:
    value: Any = 1
    for at in range(depth):
        value = [value] if at % 2 else {"a": value}
    if passes:
        assert payload(ask(CHAT, documents=[value]))["documents"] == [value]
    else:
        with pytest.raises(ApiError, match="nested too deeply"):
            ask(CHAT, documents=[value])


def test_contents_are_followed_to_their_end() -> None:
    part: dict[str, Any] = {"type": "image_url", "image_url": "http://10.0.0.1/"}
    for _ in range(30):
        part = {"type": "x", "content": [part]}
    refusal = refused(CHAT, messages=[{"role": "user", "content": [part]}])
    assert refusal.code in {"invalid_value", "unsupported_parameter"}


SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x"] * 1001}}}


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        (CHAT, {"response_format": {"json_schema": {"schema": SCHEMA}}}),
        (CHAT, {"structured_outputs": {"choice": ["a" * 1000] * 2000}}),
        (CHAT, {"structured_outputs": {"choice": ["a"] * 1001}}),
        (CHAT, {"structured_outputs": {"regex": "(a|b)*" * 1000}}),
        (COMPLETIONS, {"structured_outputs": {"grammar": 'root ::= "a"' * 1000}}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (MESSAGES, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": SCHEMA}]}),
        (CHAT, {"response_format": {"schema": {"description": "x" * 65536}}}),
        (CHAT, {"response_format": {"anyOf": [{"pattern": "[a-z]{1,999}"}] * 6}}),
        (CHAT, {"structured_outputs": {"regex": "[a-z]{" + "9" * 4000 + "}"}}),
        (RESPONSES, {"text": {"a": [{"maxLength": at} for at in range(17)]}}),
        (RESPONSES, {"text": {"a": [{"minLength": [at], "maxLength": 1} for at in range(17)]}}),
        (CHAT, {"tools": [{"function": {"description": "x" * 1000}}] * 600}),
        (COMPLETIONS, {"stop": ["x"] * 65}),
        (COMPLETIONS, {"stop": ["x", "x" * 1025]}),
        (CHAT, {"stop": "x" * 1025}),
        (MESSAGES, {"stop_sequences": ["x"] * 65}),
    ],
)
def test_a_constraint_that_takes_long_to_prepare(endpoint: str, more: dict[str, Any]) -> None:
    refusal = refused(endpoint, **more)
    assert (refusal.code, refusal.param) == ("constraint_too_large", next(iter(more)))


def test_a_usual_schema_passes() -> None:
    schema = {
        "type": "object",
        "properties": {
            f"field_{at}": {"enum": ["a", "b"], "maxLength": 50, "pattern": "^[a-z]{1,9}$"}
            for at in range(200)
        },
        "required": ["field_1"],
    }
    for endpoint, more in (
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
        (CHAT, {"tools": [{"type": "function", "function": {"parameters": schema}}]}),
        (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": schema}}}),
    ):
        assert payload(ask(endpoint, **more)).items() >= more.items()


@pytest.mark.parametrize(
    ("endpoint", "more", "bound"),
    [
        (CHAT, {}, None),
        (CHAT, {"max_tokens": 5}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 0}, 5),
        (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7),
        (COMPLETIONS, {"max_tokens": 5, "max_completion_tokens": 7}, 5),
        (RESPONSES, {"max_output_tokens": 5, "max_tokens": 7}, 5),
        (MESSAGES, {}, 5),
        (COUNT_TOKENS, {"max_tokens": 7}, None),
        (EMBEDDINGS, {"max_tokens": 7}, None),
    ],
)
def test_the_bound_on_an_answer(endpoint: str, more: dict[str, int], bound: int | None) -> None:
    assert ask(endpoint, **more).max_tokens == bound


@pytest.mark.parametrize(
    ("endpoint", "more", "param"),
    [
        (CHAT, {"max_completion_tokens": -1}, "max_completion_tokens"),
        (CHAT, {"max_tokens": 2**40}, "max_tokens"),
        (CHAT, {"n": 129}, "n"),
        (COMPLETIONS, {"prompt": ["x"] * 100, "n": 100}, "prompt"),
        (EMBEDDINGS, {"input": ["x"] * 2049}, "input"),
        (RESPONSES, {"max_output_tokens": 1.5}, "max_output_tokens"),
        (MESSAGES, {"max_tokens": None}, "max_tokens"),
        (COUNT_TOKENS, {"stream": True}, "stream"),
    ],
)
def test_numbers_have_bounds(endpoint: str, more: dict[str, Any], param: str) -> None:
    assert refused(endpoint, **more).param == param


def test_how_many_answers_a_request_asks_for() -> None:
    assert ask(COMPLETIONS, prompt=["a", "b"]).prompts == 2
    assert ask(EMBEDDINGS, input=["a", "b", "c"]).prompts == 3
    assert ask(EMBEDDINGS, input=[1, 2, 3]).prompts == 1
    assert ask(RESPONSES, input=[{"role": "user", "content": "x"}] * 3).prompts == 1
    assert ask(RESPONSES, n=5).choices_per_prompt == 1
    assert ask(MESSAGES, messages=BODIES[MESSAGES]["messages"] * 3).one_choice
