"""Gateways with budgets, and many clients at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import yaml
from gateway_parts import ADA, EVE, OTHERS, run_gateway
from scripted_upstream import MODEL, PROMPT_TOKENS, Script
from sqlalchemy import create_engine, text

from holdfast_gateway.budgets.lease_store import Balance, LeaseStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from gateway_parts import RunningGateway

COMPLETION_TOKENS = 4
EACH = PROMPT_TOKENS + COMPLETION_TOKENS
"""What one request comes to; with a model of as much context also what is reserved for it."""


def gateway_with(
    folder: Path, upstream: str, budgets: list[dict[str, Any]], *, context: int = EACH, **more: Any
) -> AbstractContextManager[RunningGateway]:
    labels = {"jurisdiction": "de", "classification": "internal"}
    tariff = {"prompt": 2, "cached": 1, "completion": 10}
    common = {"upstream": upstream, "labels": labels, "tariff": tariff}
    models = [
        {"id": MODEL, "teams": ["research"], "context_tokens": context, **common},
        {"id": OTHERS, "teams": ["press"], **common},
        *more.pop("more_models", ()),
    ]
    return run_gateway(folder, upstream, budgets=budgets, models=models, **more)


def body(**more: Any) -> dict[str, Any]:
    script = Script(tokens=COMPLETION_TOKENS, delay=more.pop("delay", 0.0))
    messages = [{"role": "user", "content": str(script)}]
    return {"model": MODEL, "messages": messages, "max_tokens": COMPLETION_TOKENS, **more}


@dataclass
class Answers:
    """What many requests came to: how often each status and code, and the tokens of those done."""

    tokens: int = 0
    outcomes: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    last: httpx.Response | None = None

    @property
    def done(self) -> int:
        return self.outcomes[200, None]

    def see(self, response: httpx.Response) -> None:
        answer = response.json()
        error = answer.get("error")
        self.outcomes[response.status_code, error and error["code"]] += 1
        if error is None:
            self.tokens += answer["usage"]["total_tokens"]
        self.last = response


def ask(urls: Sequence[str], count: int, *, at_once: int = 200, **more: Any) -> Answers:
    """Ask so often, in turn at each gateway, so many at the same time."""
    return asyncio.run(_ask(urls, count, at_once, more))


async def _ask(urls: Sequence[str], count: int, at_once: int, more: dict[str, Any]) -> Answers:
    answers = Answers()
    free = asyncio.Semaphore(at_once)
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {ADA}"}
    content = json.dumps(body(**more)).encode()
    async with httpx.AsyncClient(
        limits=limits, headers=headers, timeout=60, trust_env=False
    ) as client:

        async def one(url: str) -> None:
            async with free:
                url = f"{url}/v1/chat/completions"
                try:
                    answers.see(await client.post(url, content=content))
                except httpx.TransportError:
                    answers.outcomes[0, "gone"] += 1

        await asyncio.gather(*(one(urls[at % len(urls)]) for at in range(count)))
    return answers


def ask_as_eve(url: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/chat/completions",
        json=body() | {"model": OTHERS},
        headers={"Authorization": f"Bearer {EVE}"},
        timeout=30,
        trust_env=False,
    )


def recorded(url: str) -> int:
    """Return the tokens of all usage rows."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            query = "SELECT sum(prompt_tokens + completion_tokens) FROM usage"
            return int(connection.execute(text(query)).scalar_one() or 0)
    finally:
        engine.dispose()


def spent(gateway: RunningGateway, model: str) -> int:
    """Return what the database knows to be spent of the only budget that counts a model."""
    config = yaml.safe_load(gateway.config.read_text())
    store = LeaseStore(config["database"], lease_seconds=45)
    try:
        (found,) = [each for each in store.balances() if each.account.endswith(f":{model}")]
        return found.spent
    finally:
        store.close()


def balance(url: str) -> Balance:
    """Return the only account there is."""
    store = LeaseStore(url, lease_seconds=45)
    try:
        (found,) = store.balances()
        return found
    finally:
        store.close()
