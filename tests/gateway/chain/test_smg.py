"""The whole chain on one machine: client, gateway, the real smg, and the mock of vLLM behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from gateway_parts import ADA, RunningGateway, free_port, run_gateway, until
from scripted_upstream import MODEL, WORDS, Script, ScriptedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator

SMG = Path(sys.executable).with_name("smg")


@pytest.fixture(scope="module")
def chain(
    tmp_path_factory: pytest.TempPathFactory, shared_upstream: ScriptedUpstream
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("chain")
    workers = folder / "workers.json"
    workers.write_text(json.dumps({"version": 1, "workers": [{"url": shared_upstream.url}]}))
    port = free_port()
    command = [
        *(str(SMG), "launch", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend", "vllm", "--policy", "cache_aware", "--disable-tokenizer-autoload"),
        *("--discovery-provider", "file", "--discovery-file", str(workers)),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())),
    ]
    with (folder / "smg.log").open("wb") as log:
        smg = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: _serves(port), 60)
        with run_gateway(folder, f"http://127.0.0.1:{port}") as gateway:
            yield gateway
    finally:
        smg.kill()
        smg.wait()


def _serves(port: int) -> bool:
    try:
        return MODEL in httpx.get(f"http://127.0.0.1:{port}/v1/models").text
    except httpx.TransportError:
        return False


def ask(**script: Any) -> list[Any]:
    return [{"role": "user", "content": str(Script(**script))}]


def test_streams_are_the_same_through_smg(
    chain: RunningGateway, upstream: ScriptedUpstream
) -> None:
    body = {"model": MODEL, "messages": ask(tokens=8), "stream": True, "logprobs": True}
    direct = httpx.post(f"{upstream.url}/v1/chat/completions", json=body).content
    assert chain.post(body).content == direct
    seen = upstream.requests[-1]
    assert seen.body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert ADA not in str(seen)
    assert "authorization" not in seen.headers


def test_order_and_cache_salt_reach_the_replica(
    chain: RunningGateway, upstream: ScriptedUpstream
) -> None:
    asked = {"model": MODEL, "messages": ask(), "max_tokens": 2}
    assert chain.post(asked).status_code == 200
    assert chain.post({"model": MODEL, "prompt": "Hi"}, "/v1/completions").status_code == 200
    first, second = (seen.body for seen in upstream.requests[-2:])
    assert (first["priority"], second["priority"]) == (0, 1)
    assert first["cache_salt"] == second["cache_salt"]


def test_smg_sends_done_after_a_crash_and_the_gateway_does_not(chain: RunningGateway) -> None:
    chain.look_from_now()
    stream = chain.client().chat.completions.create(
        model=MODEL,
        messages=ask(tokens=6, delay=0.05, crash_after=3),
        stream=True,
        logprobs=True,  # so that it cannot be resumed
    )
    said: list[str | None] = []
    with pytest.raises(openai.APIError) as failure:
        said.extend(chunk.choices[0].delta.content for chunk in stream)
    assert failure.value.code == "stream_interrupted"
    row = chain.rows(1)[0]
    assert (row["state"], row["completion_tokens"]) == ("error", 3)


def test_who_goes_away_is_felt_behind_smg(
    chain: RunningGateway, upstream: ScriptedUpstream
) -> None:
    chain.look_from_now()
    stream = chain.client().chat.completions.create(
        model=MODEL, messages=ask(tokens=10_000, delay=0.02), stream=True
    )
    assert next(iter(stream)).choices[0].delta.content == WORDS[0]
    stream.close()
    until(lambda: upstream.active == 0)
    assert chain.rows(1)[0]["state"] == "aborted"


def test_a_model_that_the_pool_lacks_is_503(chain: RunningGateway) -> None:
    """The gateway offers it, by mistake or because it is still being loaded."""
    answer = chain.post(
        {"model": "holdfast/for-others", "messages": ask()},
        headers={"Authorization": "Bearer eve-has-a-secret-token-01"},
    )
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_unavailable"


TYPED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"model": MODEL, "input": str(Script(tokens=8))}),
    ("/v1/messages", {"model": MODEL, "messages": ask(tokens=8), "max_tokens": 20}),
]


@pytest.mark.parametrize(("path", "body"), TYPED)
def test_the_other_apis_are_the_same_through_smg(
    chain: RunningGateway, upstream: ScriptedUpstream, path: str, body: dict[str, Any]
) -> None:
    for asked in (body, body | {"stream": True}):
        direct = httpx.post(upstream.url + path, json=asked).content
        assert chain.post(asked, path).content == direct
    seen = upstream.requests[-1].body
    # smg takes no cache_salt for responses, and writes a priority of 0 there by itself.
    assert ("cache_salt" in seen) is (path == "/v1/messages")
    assert seen.get("store") is (False if path == "/v1/responses" else None)
    counted = {"model": MODEL, "messages": ask()}
    answer = chain.post(counted, "/v1/messages/count_tokens")
    assert answer.json()["input_tokens"] == 7


@pytest.mark.parametrize(("path", "body"), TYPED)
def test_a_replica_that_dies_behind_smg_ends_the_other_apis_with_an_error(
    chain: RunningGateway, path: str, body: dict[str, Any]
) -> None:
    script = str(Script(tokens=8, crash_after=3))
    said = {"input": script} if "input" in body else {"messages": ask(tokens=8, crash_after=3)}
    answer = chain.post(body | said | {"stream": True}, path)
    *events, last, _ = answer.text.split("\n\n")
    assert sum(".delta" in event or "_delta" in event.split("\n")[0] for event in events) == 3
    assert last.startswith("event: error\ndata: ")
    assert "[DONE]" not in answer.text
    assert "127.0.0.1" not in answer.text
