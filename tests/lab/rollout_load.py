"""Constant load on a model until told to stop: half of the requests are streams; run as a program.

Arguments: model, how many at once, file whose presence ends it. Prints JSON: {"requests",
"streams", "failed": [why], "broken": [why], "slowest": seconds}. A stream is broken unless it ends
with a reason and as many tokens as were asked for.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import openai

TOKENS = 48
QUESTION = "What is Holdfast?"


class Load:
    """What several threads ask, and what came of it."""

    def __init__(self, model: str, stop: Path) -> None:
        self._client = openai.OpenAI(max_retries=0, timeout=120)
        self._model = model
        self._stop = stop
        self._lock = threading.Lock()
        self.requests = 0
        self.streams = 0
        self.failed: list[str] = []
        self.broken: list[str] = []
        self.slowest = 0.0

    def run(self, number: int) -> None:
        """Ask one thing after the other."""
        turn = number
        while not self._stop.exists():
            turn += 1
            began = time.monotonic()
            if turn % 2:
                self._stream()
            else:
                self._whole()
            with self._lock:
                self.requests += 1
                self.streams += turn % 2
                self.slowest = max(self.slowest, time.monotonic() - began)

    def _whole(self) -> None:
        try:
            answer = self._client.completions.create(
                model=self._model,
                prompt=QUESTION,
                max_tokens=TOKENS,
                temperature=0,
                extra_body={"ignore_eos": True},
            )
        except openai.OpenAIError as error:
            self.failed.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:300])
            return
        if answer.usage is None or answer.usage.completion_tokens != TOKENS:
            self.failed.append(f"usage {answer.usage}")

    def _stream(self) -> None:
        counted, ended = 0, False
        try:
            events = self._client.completions.create(
                model=self._model,
                prompt=QUESTION,
                max_tokens=TOKENS,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
        except openai.OpenAIError as error:
            self.failed.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:300])
            return
        try:
            for event in events:
                if event.usage is not None:
                    counted = event.usage.completion_tokens
                ended = ended or any(choice.finish_reason for choice in event.choices)
        except Exception as error:  # noqa: BLE001 - whatever breaks a stream is what is counted
            self.broken.append(f"{time.strftime('%H:%M:%S')} {error!r}"[:300])
            return
        if not ended or counted != TOKENS:
            self.broken.append(f"ended {ended} with {counted} tokens")


def main() -> None:
    """Run until the file is there."""
    model, width, stop = sys.argv[1:]
    load = Load(model, Path(stop))
    threads = [threading.Thread(target=load.run, args=(number,)) for number in range(int(width))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {
        "requests": load.requests,
        "streams": load.streams,
        "failed": load.failed,
        "broken": load.broken,
        "slowest": round(load.slowest, 2),
    }
    print(json.dumps(told))  # noqa: T201 - what it is run for


if __name__ == "__main__":
    main()
