from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast_gateway.api.calls import CHAT, COMPLETIONS, EMBEDDINGS, INTERNAL_FIELDS, Call, parse
from holdfast_gateway.api.errors import ApiError

MESSAGES = [{"role": "user", "content": "hello"}]
BAD = ("invalid_json", None)


def chat(**more: Any) -> Call:
    return parse(CHAT, json.dumps({"model": "m", "messages": MESSAGES} | more).encode())


def payload(call: Call) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(call.payload({}))
    return sent


def test_what_is_not_ours_passes_unchanged() -> None:
    extra = {"temperature": 0.1, "logprobs": True, "tools": [{"type": "function"}], "seed": 2**60}
    assert payload(chat(**extra)) == {"model": "m", "messages": MESSAGES} | extra


def test_a_stream_is_always_asked_for_its_usage() -> None:
    asked = {"include_usage": True, "continuous_usage_stats": True}
    assert payload(chat(stream=True))["stream_options"] == asked
    assert payload(chat(stream=True, stream_options=None))["stream_options"] == asked
    kept = payload(chat(stream=True, stream_options={"include_usage": False, "other": 1}))
    assert kept["stream_options"] == asked | {"other": 1}


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        (None, (False, False)),
        ({}, (False, False)),
        ({"include_usage": True}, (True, False)),
        ({"include_usage": True, "continuous_usage_stats": True}, (True, True)),
        ({"continuous_usage_stats": True}, (False, False)),  # as vLLM: nothing without the first
    ],
)
def test_what_the_client_asked_for_is_remembered(options: Any, wants: tuple[bool, bool]) -> None:
    call = chat(stream=True, stream_options=options)
    assert (call.wants_usage, call.wants_continuous_usage) == wants


@pytest.mark.parametrize("field", sorted(INTERNAL_FIELDS))
def test_internal_fields_are_taken_out(field: str) -> None:
    assert field not in payload(chat(**{field: "x"}))


def test_a_doubled_key_reaches_the_upstream_once() -> None:
    body = b'{"model": "mine", "model": "theirs", "messages": [{"role": "user"}]}'
    call = parse(CHAT, body)
    assert call.model == "theirs"
    assert call.payload({}).count(b'"model"') == 1


@pytest.mark.parametrize(
    ("endpoint", "body", "code", "param"),
    [
        (CHAT, b"", "invalid_json", None),
        (CHAT, b"{", "invalid_json", None),
        (CHAT, b"[]", "invalid_json", None),
        (CHAT, b'"x"', "invalid_json", None),
        (CHAT, b"\xff\xfe", "invalid_json", None),
        (CHAT, b'{"model": NaN}', "invalid_json", None),
        (CHAT, b"[" * 100_000, "invalid_json", None),
        (CHAT, b'{"model": ' + b"1" * 5000 + b"}", "invalid_json", None),
        (CHAT, b'{"model":"m","messages":[{"role":"u"}],"x":1e999}', "invalid_json", None),
        (CHAT, b'{"model":"m","messages":[{"role":"u"}],"x":' + b"1" * 101 + b"}", *BAD),
        (CHAT, b"{}", "missing_required_parameter", "model"),
        (CHAT, b'{"model": ""}', "invalid_value", "model"),
        (CHAT, b'{"model": "\\ud800"}', "invalid_value", "model"),
        (CHAT, b'{"model": "' + b"m" * 300 + b'"}', "invalid_value", "model"),
        (CHAT, b'{"model": 1}', "invalid_type", "model"),
        (CHAT, b'{"model": "m"}', "missing_required_parameter", "messages"),
        (CHAT, b'{"model": "m", "messages": {}}', "invalid_type", "messages"),
        (CHAT, b'{"model": "m", "messages": []}', "invalid_value", "messages"),
        (CHAT, b'{"model": "m", "messages": ["x"]}', "invalid_type", "messages[0]"),
        (CHAT, b'{"model": "m", "messages": [{}]}', "invalid_type", "messages[0].role"),
        (COMPLETIONS, b'{"model": "m", "prompt": 1}', "invalid_type", "prompt"),
        (COMPLETIONS, b'{"model": "m", "prompt": "", "stream": 1}', "invalid_type", "stream"),
        (COMPLETIONS, b'{"model": "m", "prompt": "", "n": 0}', "invalid_value", "n"),
        (COMPLETIONS, b'{"model": "m", "prompt": "", "n": true}', "invalid_type", "n"),
        (
            COMPLETIONS,
            b'{"model": "m", "prompt": "", "stream_options": {"include_usage": true}}',
            "invalid_value",
            "stream_options",
        ),
        (EMBEDDINGS, b'{"model": "m"}', "missing_required_parameter", "input"),
        (EMBEDDINGS, b'{"model": "m", "input": "x", "stream": true}', "invalid_value", "stream"),
    ],
)
def test_a_bad_body_is_400_and_names_the_field(
    endpoint: str, body: bytes, code: str, param: str | None
) -> None:
    with pytest.raises(ApiError) as refusal:
        parse(endpoint, body).payload({})
    assert refusal.value.status == 400
    assert refusal.value.code == code
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("prompt", "one"),
    [("x", True), ([1, 2], True), (["a"], False), (["a", "b"], False), ([[1], [2]], False)],
)
def test_several_prompts_are_several_choices(prompt: Any, *, one: bool) -> None:
    body = json.dumps({"model": "m", "prompt": prompt}).encode()
    assert parse(COMPLETIONS, body).one_choice is one
    assert not chat(n=2).one_choice


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8"])
def test_a_body_is_utf_8(encoding: str) -> None:
    # Its bytes bound its tokens: in UTF-16 a Chinese character has two, and may be three tokens.
    body = json.dumps({"model": "m", "messages": MESSAGES}).encode(encoding)
    if encoding == "utf-8":
        assert parse(CHAT, b"\xef\xbb\xbf" + body).model == "m"  # a mark some programs write
        return
    with pytest.raises(ApiError) as refusal:
        parse(CHAT, body)
    assert refusal.value.code == "invalid_json"


@pytest.mark.parametrize(
    "many",
    [
        b"[" + b",".join([b"{}"] * 100_001) + b"]",
        b"[" + b",".join([b"[" * 50 + b"]" * 50] * 2001) + b"]",
        b"[" + b"1," * 1_000_001 + b"1]",
        b"[" + b'"",' * 1_000_001 + b"1]",
        b"{" + b",".join(b'"%d":1' % at for at in range(200_001)) + b"}",
        b"[" + b'"\\\\",' * 1_000_001 + b"1]",
    ],
)
def test_what_takes_long_to_read_is_not_read(many: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user"}],"metadata":' + many + b"}"
    with pytest.raises(ApiError) as refusal:
        parse(CHAT, body)
    assert (refusal.value.status, refusal.value.code) == (400, "request_too_large")


def test_a_text_may_have_any_punctuation() -> None:
    text = '[{,:"\\' * 250_000
    call = parse(CHAT, json.dumps({"model": "m", "messages": [{"role": text}]}).encode())
    assert call.request["messages"][0]["role"] == text
