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
            model=MODEL, messages=ask(**script), stream=True
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
