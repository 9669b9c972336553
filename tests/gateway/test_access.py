"""Guessing tokens: no answer says more than another, nothing is written, and it costs little."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
from gateway_parts import ADA, RunningGateway
from scripted_upstream import MODEL

from holdfast_trust import tokens

if TYPE_CHECKING:
    from pathlib import Path

GUESSES = 2000
PER_GUESS_SECONDS = 0.02  # on a busy machine; some 0.002 s on a quiet one


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_many_wrong_tokens_learn_nothing_and_fill_nothing(gateway: RunningGateway) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    assert gateway.post(body).status_code == 200
    gateway.rows(1)
    kinds = {
        "none": "",
        "unknown": tokens.mint(),
        "mistyped": tokens.mint()[:-1] + "!",
        "near": ADA[:-1] + "2",
        "long": "x" * 900,
        "too long": "x" * 5000,
        "odd": "hft_\xff",
    }
    before = size(gateway.folder)
    answers = set()
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for token in kinds.values():
            sent = f"Bearer {token}".strip().encode("latin-1")
            guess = {b"Authorization": sent}
            answer = client.post("/v1/chat/completions", json=body, headers=guess)
            answers.add((answer.status_code, answer.content))
            assert token not in answer.text or not token
        began = time.monotonic()
        for _ in range(GUESSES):
            headers = {"Authorization": f"Bearer {tokens.mint()}"}
            answer = client.get("/v1/models", headers=headers)
            answers.add((answer.status_code, answer.content))
        took = time.monotonic() - began
    assert len(answers) == 1, answers
    assert answers.pop()[0] == 401
    assert took / GUESSES < PER_GUESS_SECONDS
    assert size(gateway.folder) - before < 4096
    assert gateway.post(body).status_code == 200
    gateway.events(2)
