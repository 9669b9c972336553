"""The gateway as Anthropic's stock client sees it: the real package against a real process."""

from __future__ import annotations

import asyncio
from datetime import UTC
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from gateway_parts import ADA, EVE, OTHERS, RunningGateway, run_gateway
from scripted_upstream import CACHED_TOKENS, MODEL, PROMPT_TOKENS, WORDS, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic.types import MessageParam, ToolParam

pytestmark = pytest.mark.contract

TEXT = "".join(WORDS[:4])
TOOL: ToolParam = {
    "name": "weather",
    "description": "The weather of a place.",
    "input_schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream
) -> Iterator[RunningGateway]:
    with run_gateway(tmp_path_factory.mktemp("gateway"), upstream.url) as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=ADA, max_retries=0) as client:
        yield client


def ask(**script: Any) -> list[MessageParam]:
    return [{"role": "user", "content": str(Script(**script))}]


def test_a_message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=8, messages=ask())
    assert [block.text for block in answer.content if block.type == "text"] == [TEXT]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens == PROMPT_TOKENS - CACHED_TOKENS
    assert answer.usage.cache_read_input_tokens == CACHED_TOKENS
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_a_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=8, messages=ask(comment=True)) as stream:
        assert list(stream.text_stream) == WORDS[:4]
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 4
    events = client.messages.create(model=MODEL, max_tokens=8, messages=ask(), stream=True)
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-2:] == ["message_delta", "message_stop"]


def test_tools(client: anthropic.Anthropic, upstream: ScriptedUpstream) -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=8,
        messages=ask(),
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "weather"},
    )
    block = answer.content[0]
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("weather", {"a": 1})
    sent = upstream.requests[-1].body
    assert (sent["tools"], sent["tool_choice"]) == ([TOOL], {"type": "tool", "name": "weather"})
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    conversation: list[MessageParam] = [
        *ask(),
        {"role": "assistant", "content": [block.to_dict()]},  # type: ignore[list-item]  # as sent
        {"role": "user", "content": [result]},  # type: ignore[list-item]  # as sent
    ]
    client.messages.create(model=MODEL, max_tokens=8, messages=conversation, tools=[TOOL])
    assert upstream.requests[-1].body["messages"] == conversation


def test_a_tool_call_in_a_stream(client: anthropic.Anthropic) -> None:
    events = client.messages.create(
        model=MODEL, max_tokens=8, messages=ask(tokens=2), tools=[TOOL], stream=True
    )
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert [delta.partial_json for delta in deltas if delta.type == "input_json_delta"] == WORDS[:2]


def test_tokens_are_counted_beforehand_for_nothing(
    client: anthropic.Anthropic, gateway: RunningGateway
) -> None:
    gateway.look_from_now()
    counted = client.messages.count_tokens(model=MODEL, messages=ask())
    assert counted.input_tokens == PROMPT_TOKENS
    row = gateway.rows(1)[0]
    assert (row["prompt_tokens"], row["completion_tokens"]) == (0, 0)


@pytest.mark.parametrize("place", ["api_key", "auth_token"])
def test_both_places_for_a_token(gateway: RunningGateway, place: str) -> None:
    for token in (ADA, ADA + "x"):
        places: dict[str, Any] = {"api_key": None, "auth_token": None, place: token}
        with anthropic.Anthropic(base_url=gateway.url, max_retries=0, **places) as client:
            if token == ADA:
                client.messages.create(model=MODEL, max_tokens=8, messages=ask())
                continue
            with pytest.raises(anthropic.AuthenticationError) as refusal:
                client.messages.create(model=MODEL, max_tokens=8, messages=ask())
            assert token not in str(refusal.value)


def test_refusals_are_in_the_words_of_this_api(client: anthropic.Anthropic) -> None:
    for model in (OTHERS, "holdfast/nowhere"):
        with pytest.raises(anthropic.NotFoundError) as missing:
            client.messages.create(model=model, max_tokens=8, messages=ask())
        assert missing.value.body == {
            "type": "error",
            "error": {
                "type": "not_found_error",
                "message": f"The model '{model}' does not exist or you do not have access to it.",
            },
            "request_id": missing.value.request_id,
        }
        assert str(missing.value.request_id).startswith("req_")
    with pytest.raises(anthropic.BadRequestError) as bad:
        client.messages.create(model=MODEL, max_tokens=-1, messages=ask())
    assert bad.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]  # JSON
    upstream_said = {"type": "error", "error": {"type": "BadRequestError", "message": "too long"}}
    with pytest.raises(anthropic.BadRequestError, match="too long"):
        client.messages.create(
            model=MODEL, max_tokens=8, messages=ask(status=400, error=upstream_said)
        )


def test_a_stream_that_breaks_raises_and_never_looks_complete(client: anthropic.Anthropic) -> None:
    for script in ({"crash_after": 2}, {"balancer_crash_after": 2}, {"done_after": 2}):
        said = []
        with (  # noqa: PT012  # the loop is what raises
            pytest.raises(anthropic.APIStatusError) as failure,
            client.messages.stream(model=MODEL, max_tokens=8, messages=ask(**script)) as stream,
        ):
            for text in stream.text_stream:
                said.append(text)  # noqa: PERF402  # kept when it raises
        assert said == WORDS[:2]
        assert "incomplete" in str(failure.value)
        assert "10.0.0.9" not in str(failure.value)


async def test_the_asynchronous_client_leaves_in_mid_stream(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    gateway.look_from_now()
    asynchronous = anthropic.AsyncAnthropic(base_url=gateway.url, api_key=ADA, max_retries=0)
    long = ask(tokens=1000, delay=0.02)
    async with (
        asynchronous as client,
        client.messages.stream(model=MODEL, max_tokens=2000, messages=long) as stream,
    ):
        async for _text in stream.text_stream:
            break
    for _ in range(100):
        if upstream.active == 0:
            break
        await asyncio.sleep(0.02)
    assert upstream.active == 0
    row = gateway.rows(1)[0]
    assert (row["state"], row["prompt_tokens"]) == ("aborted", PROMPT_TOKENS)
    assert 0 < row["completion_tokens"] < 100


def test_a_model_of_another_team(gateway: RunningGateway) -> None:
    with anthropic.Anthropic(base_url=gateway.url, api_key=EVE, max_retries=0) as client:
        client.messages.create(model=OTHERS, max_tokens=8, messages=ask())
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model=MODEL, max_tokens=8, messages=ask())


def test_models(client: anthropic.Anthropic) -> None:
    assert [(model.id, model.type) for model in client.models.list()] == [(MODEL, "model")]
    found = client.models.retrieve(MODEL)
    assert (found.id, found.display_name, found.created_at.tzinfo) == (MODEL, MODEL, UTC)
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve(OTHERS)
