"""So many requests, so many at once, half of them streams; run as a program.

Arguments: model, requests, how many at once, file that receives a byte for each answer. Prints
JSON: {"requests", "streams", "failed": [why], "broken": [why], "ttft_p50", "ttft_p99", "slowest"},
seconds. A stream is broken unless it ends with a reason, one usage and all tokens asked for.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

TOKENS = 48
QUESTIONS = ("What is Holdfast?", "What is a bundle?", "What is the ledger?", "Who is the steward?")


class Load:
    """What was asked, and what came of it."""

    def __init__(self, model: str, progress: Path) -> None:
        self._client = openai.OpenAI(max_retries=0, timeout=120)
        self._model = model
        self._progress = progress
        self.failed: list[str] = []
        self.broken: list[str] = []
        self.first: list[float] = []
        self.slowest = 0.0

    def ask(self, number: int) -> None:
        """Ask one thing, as a stream or whole, of the chat or of plain completion."""
        began = time.monotonic()
        try:
            if number % 2:
                self._whole(number)
            else:
                self._stream(number, began)
        except openai.OpenAIError as error:
            self.failed.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:300])
        self.slowest = max(self.slowest, time.monotonic() - began)
        with self._progress.open("ab") as progress:
            progress.write(b".")

    def _whole(self, number: int) -> None:
        answer = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": QUESTIONS[number // 2 % len(QUESTIONS)]}],
            max_tokens=TOKENS,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
        if answer.usage is None or answer.usage.completion_tokens != TOKENS:
            self.failed.append(f"usage {answer.usage}")

    def _stream(self, number: int, began: float) -> None:
        events = self._client.chat.completions.create(
            model=self._model,
            messages=[{"role": "user", "content": QUESTIONS[number // 2 % len(QUESTIONS)]}],
            max_tokens=TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        counted: list[int] = []
        ended = 0
        first = None
        try:
            for event in events:
                first = first or time.monotonic() - began
                if event.usage is not None:
                    counted.append(event.usage.completion_tokens)
                ended += sum(choice.finish_reason is not None for choice in event.choices)
        except Exception as error:  # noqa: BLE001 - whatever breaks a stream is what is counted
            self.broken.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:300])
            return
        self.first.append(first or 0.0)
        if ended != 1 or counted != [TOKENS]:
            self.broken.append(f"ended {ended} times with {counted} tokens")


def main() -> None:
    """Ask until all is answered."""
    model, requests, at_once, progress = sys.argv[1:]
    load = Load(model, Path(progress))
    with ThreadPoolExecutor(int(at_once)) as clients:
        list(clients.map(load.ask, range(int(requests))))
    first = sorted(load.first) or [0.0]
    told = {
        "requests": int(requests),
        "streams": (int(requests) + 1) // 2,
        "failed": load.failed,
        "broken": load.broken,
        "ttft_p50": round(first[len(first) // 2], 3),
        "ttft_p99": round(first[len(first) * 99 // 100], 3),
        "slowest": round(load.slowest, 2),
    }
    print(json.dumps(told))  # noqa: T201 - what it is run for


if __name__ == "__main__":
    main()
