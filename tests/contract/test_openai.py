"""The gateway as its stock client sees it: the real `openai` package against a real process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from gateway_parts import ADA, EVE, OTHERS, UNLABELLED, RunningGateway, run_gateway
from scripted_upstream import MODEL, WORDS, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.contract


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


def ask(**script: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(Script(**script))}]


TEXT = "".join(WORDS[:4])


def test_models_lists_what_one_may_use_and_nothing_else(gateway: RunningGateway) -> None:
    assert [model.id for model in gateway.client().models.list()] == [MODEL]
    assert [model.id for model in gateway.client(EVE).models.list()] == [OTHERS]
    found = gateway.client().models.retrieve(MODEL)
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "holdfast")


@pytest.mark.parametrize("model", [OTHERS, UNLABELLED, "holdfast/nowhere", "nothing"])
def test_a_model_one_may_not_use_is_like_one_that_does_not_exist(
    gateway: RunningGateway, model: str
) -> None:
    client = gateway.client()
    for call in (
        lambda: client.models.retrieve(model),
        lambda: client.chat.completions.create(model=model, messages=ask()),
        lambda: client.chat.completions.create(model=model, messages=ask(), stream=True),
        lambda: client.completions.create(model=model, prompt="x"),
        lambda: client.embeddings.create(model=model, input="x"),
    ):
        with pytest.raises(openai.NotFoundError) as refusal:
            call()
        assert refusal.value.body == {
            "message": f"The model '{model}' does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


@pytest.mark.parametrize("token", ["hft_wrong", ADA + "x", ADA[:-1], "x" * 5000])
def test_a_wrong_token_is_401(gateway: RunningGateway, token: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refusal:
        gateway.client(token).chat.completions.create(model=MODEL, messages=ask())
    assert refusal.value.code == "invalid_api_key"
    assert token not in str(refusal.value)
    with pytest.raises(openai.AuthenticationError):
        gateway.client(token).models.list()


def test_chat(gateway: RunningGateway) -> None:
    answer = gateway.client().chat.completions.create(model=MODEL, messages=ask())
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


def test_chat_stream_carries_no_usage_unasked(gateway: RunningGateway) -> None:
    chunks = list(
        gateway.client().chat.completions.create(model=MODEL, messages=ask(), stream=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.usage for chunk in chunks] == [None] * 4


def test_chat_stream_with_usage_has_it_once_at_the_end(gateway: RunningGateway) -> None:
    chunks = list(
        gateway.client().chat.completions.create(
            model=MODEL, messages=ask(), stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage is None for chunk in chunks] == [True] * 4 + [False]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11


def test_logprobs_pass_through_to_the_last_digit(gateway: RunningGateway) -> None:
    whole = gateway.client().chat.completions.create(
        model=MODEL, messages=ask(tokens=1), logprobs=True, top_logprobs=2
    )
    streamed = next(
        iter(
            gateway.client().chat.completions.create(
                model=MODEL, messages=ask(tokens=1), logprobs=True, top_logprobs=2, stream=True
            )
        )
    )
    for choice in (whole.choices[0], streamed.choices[0]):
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        first = choice.logprobs.content[0]
        assert first.logprob == -0.0012345678901234567
        assert first.top_logprobs[1].logprob == -1e-05


def test_completions_whole_and_streamed(gateway: RunningGateway) -> None:
    client = gateway.client()
    assert client.completions.create(model=MODEL, prompt="x").choices[0].text == TEXT
    chunks = list(client.completions.create(model=MODEL, prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT


def test_embeddings(gateway: RunningGateway) -> None:
    answer = gateway.client().embeddings.create(model=MODEL, input=["one"], encoding_format="float")
    assert answer.data[0].embedding == [0.1, -1e-05, 0.25]
    assert answer.usage.prompt_tokens == 3


def test_a_stream_that_breaks_raises_and_never_looks_complete(gateway: RunningGateway) -> None:
    for script in ({"crash_after": 2}, {"balancer_crash_after": 2}, {"done_after": 2}):
        stream = gateway.client().chat.completions.create(
            model=MODEL,
            messages=ask(**script),
            stream=True,
            response_format={"type": "json_object"},  # no other replica could go on with it
        )
        said = []
        with pytest.raises(openai.APIError) as failure:  # noqa: PT012  # the loop is what raises
            for chunk in stream:
                said.append(chunk.choices[0].delta.content)  # noqa: PERF401  # kept when it raises
        assert said == WORDS[:2]
        assert failure.value.code == "stream_interrupted"
        assert "10.0.0.9" not in str(failure.value.body)


def test_bad_requests_are_told_apart(gateway: RunningGateway) -> None:
    client = gateway.client()
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages="hello")  # type: ignore[call-overload]  # the point
    assert (refusal.value.code, refusal.value.param) == ("invalid_type", "messages")
    refused = {"message": "temperature too hot", "type": "BadRequestError", "param": "temperature"}
    with pytest.raises(openai.BadRequestError, match="too hot") as refusal:
        client.chat.completions.create(
            model=MODEL, messages=ask(status=400, error={"error": refused | {"code": 400}})
        )
    assert refusal.value.param == "temperature"


async def test_the_asynchronous_client_leaves_in_mid_stream(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    client = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=ADA, max_retries=0)
    stream = await client.chat.completions.create(
        model=MODEL, messages=ask(tokens=1000, delay=0.02), stream=True
    )
    async for _chunk in stream:
        break
    await stream.close()
    await client.close()
    for _ in range(100):
        if upstream.active == 0:
            break
        await asyncio.sleep(0.02)
    assert upstream.active == 0
    assert upstream.requests[-1].produced < 100


def test_responses(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    gateway.look_from_now()
    answer = gateway.client().responses.create(
        model=MODEL, input=str(Script()), max_output_tokens=9, instructions="Be brief."
    )
    assert answer.output_text == TEXT
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.cached_tokens == 4
    sent = upstream.requests[-1].body
    assert (sent["instructions"], sent["max_output_tokens"]) == ("Be brief.", 9)
    row = gateway.rows(1)[0]
    counted = (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
    assert counted == (7, 4, 4)
    assert (row["endpoint"], row["state"]) == ("/v1/responses", "done")


def test_a_response_streamed(gateway: RunningGateway) -> None:
    client = gateway.client()
    with client.responses.stream(model=MODEL, input=str(Script(comment=True))) as stream:
        said = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == TEXT
    assert said == WORDS[:4]
    kinds = [event.type for event in client.responses.create(model=MODEL, input="x", stream=True)]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_a_tool_call_in_a_response(gateway: RunningGateway, upstream: ScriptedUpstream) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    answer = gateway.client().responses.create(model=MODEL, input=str(Script()), tools=[tool])
    call = answer.output[0]
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", TEXT)
    assert upstream.requests[-1].body["tools"] == [tool]
    conversation: Any = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": call.call_id, "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
        {"role": "user", "content": [{"type": "input_text", "text": str(Script())}]},
    ]
    assert gateway.client().responses.create(model=MODEL, input=conversation).output_text == TEXT
    assert upstream.requests[-1].body["input"] == conversation


def test_a_response_that_breaks_raises_and_never_looks_complete(gateway: RunningGateway) -> None:
    for script in ({"crash_after": 2}, {"balancer_crash_after": 2}, {"done_after": 2}):
        stream = gateway.client().responses.create(
            model=MODEL, input=str(Script(**script)), stream=True
        )
        said = []
        with pytest.raises(openai.APIError) as failure:  # noqa: PT012  # the loop is what raises
            for event in stream:
                said.append(event.type)  # noqa: PERF401  # kept when it raises
        assert said[-2:] == ["response.output_text.delta"] * 2
        assert "response.completed" not in said
        assert failure.value.code == "stream_interrupted"
        assert "10.0.0.9" not in str(failure.value.body)


def test_responses_are_not_kept_for_anybody(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    client = gateway.client()
    made = client.responses.create(model=MODEL, input="x", store=True)
    assert upstream.requests[-1].body["store"] is False
    for call in (
        lambda: client.responses.retrieve(made.id),
        lambda: client.responses.cancel(made.id),
        lambda: client.responses.delete(made.id),
        lambda: client.responses.input_items.list(made.id),
        client.conversations.create,
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    more = {"previous_response_id": made.id, "background": True, "conversation": "conv_1"}
    for field, value in more.items():
        asked: dict[str, Any] = {field: value}
        with pytest.raises(openai.BadRequestError) as refusal:
            client.responses.create(model=MODEL, input="x", **asked)
        assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", field)


def test_what_is_asked_for_arrives_as_it_was_said(
    gateway: RunningGateway, upstream: ScriptedUpstream
) -> None:
    """Tools, JSON schema, n, stop and the rest: the body that the replica gets, and the choices."""
    asked: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}},
        },
        "n": 3,
        "stop": ["x", "y"],
        "seed": 7,
        "temperature": 0.5,
        "logit_bias": {"5": 1},
        "max_completion_tokens": 5,
    }
    answer = gateway.client().chat.completions.create(model=MODEL, messages=ask(), **asked)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    sent = upstream.requests[-1].body
    assert {field: sent[field] for field in asked} == asked


async def test_the_asynchronous_client(gateway: RunningGateway) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=ADA, max_retries=0
    ) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=ask())
        assert answer.choices[0].message.content == TEXT
        response = await client.responses.create(model=MODEL, input="x")
        assert response.output_text == TEXT
        vectors = await client.embeddings.create(model=MODEL, input="x")
        assert len(vectors.data) == 1
        assert [model.id async for model in client.models.list()] == [MODEL]
        events = await client.responses.create(model=MODEL, input="x", stream=True)
        assert [event.type async for event in events][-1] == "response.completed"
