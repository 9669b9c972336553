"""What the adapter says of smg, held against the real one: wrong model, kill, freeze, drain."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from gateway_parts import free_port, until
from replica_parts import Balancer, run_mocks, run_smg
from scripted_upstream import MODEL, PROMPT_TOKENS, Script, ScriptedUpstream

from holdfast_gateway.chain.balancer import (
    WORKERS_PATH,
    Again,
    again_after,
    headers,
    read_workers,
    replica_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mocks() -> Iterator[list[ScriptedUpstream]]:
    with run_mocks(3) as running:
        yield running


@pytest.fixture(scope="module")
def shared_balancer(
    tmp_path_factory: pytest.TempPathFactory, mocks: list[ScriptedUpstream]
) -> Iterator[Balancer]:
    with run_smg(tmp_path_factory.mktemp("smg"), [mock.url for mock in mocks]) as running:
        yield running


@pytest.fixture
def balancer(shared_balancer: Balancer, mocks: list[ScriptedUpstream]) -> Iterator[Balancer]:
    for mock in mocks:
        mock.requests.clear()
    yield shared_balancer
    for mock in mocks:
        mock.frozen = mock.sick = False
    shared_balancer.serve([mock.url for mock in mocks])
    until(lambda: shared_balancer.healthy() == 3, 30)


def ask(balancer: Balancer, *, elsewhere: bool = False, **body: Any) -> httpx.Response:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "same prompt " * 20}]} | body
    return httpx.post(
        f"{balancer.url}/v1/chat/completions",
        json=asked,
        headers=headers("req_1", elsewhere=elsewhere),
        timeout=3,
    )


def serving(mocks: list[ScriptedUpstream], answer: httpx.Response) -> ScriptedUpstream:
    (found,) = (mock for mock in mocks if mock.url.endswith(f"//{replica_of(answer.headers)}"))
    return found


def test_a_prompt_goes_where_it_was_and_the_replica_is_named(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    first = serving(mocks, ask(balancer))
    assert all(serving(mocks, ask(balancer)) is first for _ in range(5))
    assert len(first.requests) == 6


@pytest.mark.parametrize("stream", [True, False])
def test_a_second_attempt_leaves_the_replica_that_does_not_answer(
    balancer: Balancer, mocks: list[ScriptedUpstream], *, stream: bool
) -> None:
    """Under cache_aware with one and the same prompt, before anybody knows that it is ill."""
    frozen = serving(mocks, ask(balancer))
    frozen.frozen = True
    with ThreadPoolExecutor(1) as aside:
        waiting = aside.submit(ask, balancer, stream=stream)
        until(lambda: frozen.active == 1)
        others = [serving(mocks, ask(balancer, elsewhere=True, stream=stream)) for _ in range(6)]
        frozen.frozen = False
        assert serving(mocks, waiting.result()) is frozen  # without the header it stays there
    assert frozen not in others


def test_a_replica_that_is_ill_is_listed_as_ill(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    def listed() -> Any:
        return read_workers(httpx.get(balancer.url + WORKERS_PATH).content)

    assert listed().all == {mock.url.removeprefix("http://") for mock in mocks}
    assert not listed().sick
    mocks[1].sick = True
    until(lambda: listed().sick == {mocks[1].url.removeprefix("http://")}, 10)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"workers": [{"url": 1}]}', b'{"workers": 3}'])
def test_another_list_is_no_list(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"workers|Expecting"):
        read_workers(body)


def test_a_wrong_model_is_refused_by_smg_in_its_own_name(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    answer = ask(balancer, model="holdfast/other")
    assert answer.status_code == 404
    assert again_after(answer.status_code, answer.headers) is Again.LATER
    assert not any(mock.requests for mock in mocks)


def test_what_a_replica_refuses_is_not_asked_for_again(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    script = Script(status=400, error={"error": {"message": "too long", "code": 400}})
    answer = ask(balancer, messages=[{"role": "user", "content": str(script)}])
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "too long")
    assert again_after(answer.status_code, answer.headers) is Again.NO
    assert sum(len(mock.requests) for mock in mocks) == 1


def test_nobody_there_is_for_later(balancer: Balancer) -> None:
    balancer.serve([f"http://127.0.0.1:{free_port()}"])
    until(lambda: balancer.healthy() == 0, 30)
    answer = ask(balancer)
    assert answer.status_code in {404, 503}
    assert again_after(answer.status_code, answer.headers) is Again.LATER


def test_a_drained_replica_ends_its_stream_and_gets_no_other(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    messages = [{"role": "user", "content": str(Script(tokens=40, delay=0.05))}]
    body = {"model": MODEL, "messages": messages, "stream": True}
    sent = headers("req_1", elsewhere=False)
    path = f"{balancer.url}/v1/chat/completions"
    with httpx.stream("POST", path, json=body, headers=sent) as answer:
        drained = serving(mocks, answer)
        balancer.serve([mock.url for mock in mocks if mock is not drained])
        until(lambda: balancer.healthy() == 2)
        events = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(events) == 41
    assert events[-1] == "data: [DONE]"
    others = [serving(mocks, ask(balancer, messages=messages)) for _ in range(3)]
    assert drained not in others


def test_what_the_gateway_says_reaches_the_replica(
    balancer: Balancer, mocks: list[ScriptedUpstream]
) -> None:
    ours = {"priority": -3, "cache_salt": "salt", "return_token_ids": True}
    answer = ask(balancer, stream=True, stream_options={"include_usage": True}, **ours)
    seen = serving(mocks, answer).requests[-1]
    assert ours.items() <= seen.body.items()
    assert seen.headers["x-request-id"] == "req_1"
    events = [
        json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")
    ]
    assert len(events[0]["prompt_token_ids"]) == PROMPT_TOKENS
    ids = {"prompt_token_ids": events[0]["prompt_token_ids"] + [1000]}
    answer = ask(balancer, elsewhere=True, kv_transfer_params=ids)
    seen = serving(mocks, answer).requests[-1]
    assert seen.body["kv_transfer_params"] == ids
    assert "x-smg-routing-tokens" not in seen.headers
    # Which would be the plainer way: should smg take it one day, resumption may go it.
    plain = {"model": MODEL, "prompt": [1, 2], "max_tokens": 3}
    assert httpx.post(f"{balancer.url}/v1/completions", json=plain).status_code == 400
