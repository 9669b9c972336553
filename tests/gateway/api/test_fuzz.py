"""Whatever a stranger sends: a Call, or an ApiError 400 in every API's shape; never a defect."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast_gateway.api.calls import Call, parse
from holdfast_gateway.api.endpoints import CHAT, ENDPOINTS, RESPONSES, Shape
from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.api.fields import INTERNAL_FIELDS
from holdfast_gateway.api.views import MessagesView, ResponsesView

FIELDS = sorted(
    {
        *("model", "messages", "prompt", "input", "system", "stream", "stream_options", "n"),
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "tools", "text"),
        *("response_format", "structured_outputs", "output_config", "chat_template_kwargs"),
        *("chat_template", "store", "background", "previous_response_id", "content", "role"),
        *("type", "source", "image_url", "url", "file", "data", "enum", "choice", "pattern"),
        *("include_usage", "output", "use_beam_search"),
        *INTERNAL_FIELDS,
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["m", "user", "url", "data:,", "http://x/", "function", "image_embeds"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)
REQUESTS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8)
ENDPOINT = st.sampled_from(sorted(ENDPOINTS))
PARTS = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "source", "image_url", "file", "content", "output", "data"]),
        SCALARS
        | st.lists(SCALARS, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "url", "data", "file_id"]),
            SCALARS | st.lists(SCALARS, max_size=2),
            max_size=3,
        ),
        max_size=4,
    ),
    max_size=3,
)
FAST = settings(max_examples=100, deadline=2000, suppress_health_check=[HealthCheck.too_slow])


def judge(endpoint: str, body: bytes) -> None:
    try:
        call = parse(endpoint, body)
        payload = call.payload({"priority": 1, "cache_salt": "x"})
    except ApiError as refusal:
        judge_refusal(refusal)
    else:
        judge_call(call, json.loads(payload))


def judge_refusal(refusal: ApiError) -> None:
    assert refusal.status == 400
    for shape in Shape:
        told = json.loads(refusal.body(shape, "req_1"))
        assert told["error"]["message"] == refusal.message
        assert refusal.event(shape, "req_1").count(b"\n\n") == 1


def judge_call(call: Call, sent: dict[str, Any]) -> None:
    assert sent["model"] == call.model
    assert not (sent.keys() & INTERNAL_FIELDS) - {"priority", "cache_salt"}
    assert call.max_tokens is None or call.max_tokens >= 0
    assert call.prompts >= 1
    assert 1 <= call.choices_per_prompt <= 128


@FAST
@given(ENDPOINT, REQUESTS)
def test_any_object(endpoint: str, request: dict[str, Any]) -> None:
    judge(endpoint, json.dumps(request).encode())


@FAST
@given(ENDPOINT, REQUESTS, PARTS | VALUES)
def test_any_object_that_begins_well(endpoint: str, request: dict[str, Any], said: Any) -> None:
    row = ENDPOINTS[endpoint]
    good: Any = [{"role": "user", "content": said}] if list in row.input_types else "x"
    judge(endpoint, json.dumps(request | {"model": "m", row.input: good, "max_tokens": 1}).encode())


@FAST
@given(ENDPOINT, st.binary(max_size=64) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(endpoint: str, body: bytes) -> None:
    judge(endpoint, body)


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","%s":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"model":"m","%s":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        b'{"model":"m","%s":[' + b'{"role":"u","content":[' * 300 + b"]}" * 300 + b"]}",
        b'{"model":"m","%s":"x","tools":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"model":"m","%s":["x"' + b',"x"' * 1_000_000 + b"]}",
        b'{"model":"m","%s":[{"role":"u"}' + b',{"role":"u"}' * 300_000 + b"]}",
        b'{"model":"m","%s":"' + b"x" * 8_000_000 + b'"}',
        b'{"model":"m","%s":"x",' + b'"a":1,' * 1_000_000 + b'"b":1}',
        b'{"model":"m","%s":' + b"9" * 4_000_000 + b"}",
    ],
    ids=["lists", "objects", "contents", "tools", "prompts", "messages", "long", "keys", "digits"],
)
def test_what_is_large_or_deep_takes_no_time(endpoint: str, body: bytes) -> None:
    began = time.process_time()
    judge(endpoint, body.replace(b"%s", ENDPOINTS[endpoint].input.encode(), 1))
    assert time.process_time() - began < 1


@FAST
@given(st.lists(VALUES.map(lambda value: json.dumps(value).encode()) | st.binary(), max_size=4))
def test_any_events_of_an_upstream(events: list[bytes]) -> None:
    for view in (ResponsesView(), MessagesView()):
        for event in events:
            seen = view.see(event)
            if seen is not None:
                framed = view.frame(seen)
                assert framed.endswith(b"\n\n")
                assert b"\n\n" not in framed[:-2]
        assert not (view.complete and view.failure)


@FAST
@given(st.text(alphabet="a_.\r\n: \0é", max_size=20))
def test_an_event_is_named_by_plain_letters(kind: str) -> None:
    view = ResponsesView()
    seen = view.see(json.dumps({"type": kind}).encode())
    if seen is not None:
        name, data, *rest = view.frame(seen).split(b"\n")
        assert name == b"event: " + kind.encode()
        assert (data[:6], rest) == (b"data: ", [b"", b""])
