"""A mock of vLLM's OpenAI server: deterministic, and told by each prompt how to misbehave.

It speaks the shapes that vLLM 0.32 speaks (event order, keys and their order, usage per choice in
continuous usage) so that the gateway can be driven into corners a real replica seldom shows. What
it proves is the gateway's behaviour, not vLLM's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import scripted_apis
import scripted_tokens
from aiohttp import web

if TYPE_CHECKING:
    from types import TracebackType

MODEL = "holdfast/starter"
WORDS = ["Hold", "fast", " grüßt", ' "usage":', ',"usage":{}}', " data: [DONE]\n\n", " 😀", "."]
PROMPT_TOKENS = 7
CACHED_TOKENS = 4


@dataclass
class Script:
    """What the mock does; the prompt is this as JSON, or any other text for the defaults."""

    tokens: int = 4
    delay: float = 0.0  # seconds before each token
    head_delay: float = 0.0  # seconds before the head of the answer
    crash_after: int | None = None  # close the connection after so many tokens
    crash_again_after: int | None = None  # the same once more, counted from the first token
    balancer_crash_after: int | None = None  # what smg makes of it: an error event, then [DONE]
    done_after: int | None = None  # [DONE] although there is more to come
    hang_after: int | None = None  # nothing more, connection open
    murmur_after: int | None = None  # the same, but for the balancer's comments
    status: int = 200
    error: Any = None  # body when status is not 200
    comment: bool = False  # keep-alive comments between events
    raw: str | None = None  # this instead of an answer
    raw_times: int = 1

    @classmethod
    def of(cls, text: object) -> Script:
        try:
            return cls(**json.loads(text)) if isinstance(text, str) else cls()
        except (ValueError, TypeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps(self.__dict__)


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    produced: int = 0
    said: int = 0  # words that came with the prompt, as token ids
    ended: bool = False


@dataclass
class ScriptedUpstream:
    """The mock, on a loopback port and a thread of its own. Use as a context manager."""

    port: int = 0
    requests: list[Seen] = field(default_factory=list)
    frozen: bool = False  # accepts connections, answers /health, and says no word
    sick: bool = False  # /health says 503

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def active(self) -> int:
        return sum(not seen.ended for seen in self.requests)

    async def _start(self) -> None:
        app = web.Application(client_max_size=128 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._generate)
        app.router.add_post("/v1/completions", self._generate)
        app.router.add_post("/v1/embeddings", self._embed)
        for path in (scripted_apis.RESPONSES, scripted_apis.MESSAGES, scripted_apis.COUNT_TOKENS):
            app.router.add_post(path, self._typed)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=503 if self.sick else 200)

    async def _thaw(self) -> None:
        while self.frozen:  # noqa: ASYNC110  # set from another thread
            await asyncio.sleep(0.01)

    async def _models(self, _request: web.Request) -> web.Response:
        entry = {"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm", "root": MODEL}
        return web.json_response({"object": "list", "data": [entry]})

    async def _embed(self, request: web.Request) -> web.Response:
        seen = await self._see(request)
        seen.ended = True
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, -1e-05, 0.25]}]
        usage = {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0}
        return web.json_response({"object": "list", "data": data, "model": MODEL, "usage": usage})

    async def _see(self, request: web.Request) -> Seen:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.path, headers, await request.json())
        self.requests.append(seen)
        return seen

    async def _typed(self, request: web.Request) -> web.StreamResponse:
        seen = await self._see(request)
        try:
            script = Script.of(scripted_apis.prompt_of(seen.path, seen.body))
            words = [WORDS[at % len(WORDS)] for at in range(script.tokens)]
            shape = (seen.path, seen.body, words, PROMPT_TOKENS, CACHED_TOKENS)
            await asyncio.sleep(script.head_delay)
            if script.status != 200:
                return web.json_response(script.error, status=script.status)
            if script.raw is not None:
                return web.Response(text=script.raw)
            if not seen.body.get("stream"):
                await asyncio.sleep(script.delay * script.tokens)
                seen.produced = script.tokens
                return web.json_response(scripted_apis.whole(*shape))
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream; charset=utf-8"}
            )
            await response.prepare(request)
            for token, event in scripted_apis.events(*shape):
                if token:
                    await asyncio.sleep(script.delay)
                    if await self._misbehaves(request, response, script, seen.produced):
                        return response
                    seen.produced += 1
                await response.write(f"event: {event['type']}\n".encode())
                await _event(response, event)
            return response
        finally:
            seen.ended = True

    async def _misbehaves(
        self, request: web.Request, response: web.StreamResponse, script: Script, at: int
    ) -> bool:
        """Do at this token what the script says; True when nothing more is to come."""
        if at == script.crash_after:
            assert request.transport is not None
            request.transport.abort()
            return True
        if at == script.balancer_crash_after:
            error = {"message": "Stream error: http://10.0.0.9:8400", "type": "stream_error"}
            await _event(response, {"error": error})
        if at in (script.balancer_crash_after, script.done_after):
            await response.write(b"data: [DONE]\n\n")
            return True
        if at == script.hang_after:
            await asyncio.sleep(3600)
        while at == script.murmur_after:
            await response.write(b": keep-alive\n\n")
            await asyncio.sleep(0.05)
        if script.comment:
            await response.write(b": keep-alive\n\n")
        return False

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        seen = await self._see(request)
        try:
            chat = "messages" in seen.body
            text = seen.body["messages"][-1]["content"] if chat else seen.body["prompt"]
            script, seen.said = _read(seen.body, text)
            await self._thaw()
            await asyncio.sleep(script.head_delay)
            if script.status != 200:
                return web.json_response(script.error, status=script.status)
            if script.raw is not None:
                return web.Response(text=script.raw * script.raw_times)
            if seen.body.get("stream"):
                return await self._stream(request, seen, script, chat=chat)
            answer = await _whole(seen, script, chat=chat)
            await self._thaw()
            return web.json_response(answer)
        finally:
            seen.ended = True

    async def _stream(
        self, request: web.Request, seen: Seen, script: Script, *, chat: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Smg-Worker": "w1"}
        )
        await response.prepare(request)
        choices = _choices(seen.body)
        tokens = script.tokens
        if seen.said:
            tokens = min(tokens, seen.said + seen.body.get("max_tokens", tokens))
        if "kv_transfer_params" in seen.body:
            await _event(response, _role(seen))
        for at in range(seen.said, tokens):
            await asyncio.sleep(script.delay)
            await self._thaw()
            if await self._misbehaves(request, response, script, at):
                return response
            for index in range(choices):
                last = at == tokens - 1
                seen.produced += 1  # before anybody can have seen it
                await _event(response, _chunk(seen, script, at, index, last=last, chat=chat))
        if not script.comment and await self._misbehaves(request, response, script, tokens):
            return response  # between the last token and the sum
        options = seen.body.get("stream_options") or {}
        if options.get("include_usage"):
            final = _base(seen.body, chunk=True, chat=chat)
            await _event(response, final | {"choices": [], "usage": _usage(seen, tokens)})
        await response.write(b"data: [DONE]\n\n")
        return response


async def _event(response: web.StreamResponse, data: dict[str, Any]) -> None:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    await response.write(b"data: " + text.encode() + b"\n\n")


def _prompts(body: dict[str, Any]) -> int:
    prompt = body.get("prompt")
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


def _choices(body: dict[str, Any]) -> int:
    return _prompts(body) * (body.get("n") or 1)


def _base(body: dict[str, Any], *, chunk: bool, chat: bool) -> dict[str, Any]:
    kind = ("chat.completion" + (".chunk" if chunk else "")) if chat else "text_completion"
    return {"id": "cmpl-1", "object": kind, "created": 1763625600, "model": body["model"]}


def _logprobs(word: str) -> dict[str, Any]:
    top = [{"token": word, "logprob": -0.0012345678901234567, "bytes": list(word.encode())}]
    return {"content": [top[0] | {"top_logprobs": [*top, {**top[0], "logprob": -1e-05}]}]}


def _read(body: dict[str, Any], text: object) -> tuple[Script, int]:
    ids: list[int] | None = (body.get("kv_transfer_params") or {}).get("prompt_token_ids")
    return (Script.of(text), 0) if ids is None else scripted_tokens.script_of(ids, Script)


def _chunk(  # noqa: PLR0913  # the mock's own parts
    seen: Seen, script: Script, at: int, index: int, *, last: bool, chat: bool
) -> dict[str, Any]:
    body = seen.body
    word = WORDS[at % len(WORDS)]
    said: dict[str, Any] = {"delta": {"content": word}} if chat else {"text": word}
    choice: dict[str, Any] = {
        "index": index,
        **said,
        "logprobs": _logprobs(word) if body.get("logprobs") else None,
        "finish_reason": "stop" if last else None,
    }
    if last or not chat:
        choice["stop_reason"] = None
    first = at == seen.said
    asked = body.get("return_token_ids")
    ids = scripted_tokens.prompt_ids(script) if asked and first else None
    if not chat:
        choice["prompt_token_ids"] = ids
    choice["token_ids"] = [scripted_tokens.word_id(at)] if asked else None
    chunk = _base(body, chunk=True, chat=chat) | {"choices": [choice]}
    if (body.get("stream_options") or {}).get("continuous_usage_stats"):
        # As vLLM counts: each choice for itself.
        so_far = at + 1 - seen.said
        chunk["usage"] = {
            "prompt_tokens": PROMPT_TOKENS + seen.said,
            "total_tokens": PROMPT_TOKENS + at + 1,
            "completion_tokens": so_far,
        }
    if chat and first:
        chunk |= {"prompt_token_ids": ids, "prompt_text": None}
    return chunk


def _role(seen: Seen) -> dict[str, Any]:
    """Return how vLLM begins each chat; left out where nobody looks at it."""
    delta = {"role": "assistant", "content": ""}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    prompt = PROMPT_TOKENS + seen.said
    usage = {"prompt_tokens": prompt, "total_tokens": prompt, "completion_tokens": 0}
    ids = seen.body["kv_transfer_params"]["prompt_token_ids"]
    last = {"usage": usage, "prompt_token_ids": ids, "prompt_text": None}
    return _base(seen.body, chunk=True, chat=True) | {"choices": [choice]} | last


def _usage(seen: Seen, tokens: int) -> dict[str, Any]:
    body = seen.body
    prompt = PROMPT_TOKENS * _prompts(body) + seen.said
    completion = (tokens - seen.said) * _choices(body)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    }


async def _whole(seen: Seen, script: Script, *, chat: bool) -> dict[str, Any]:
    await asyncio.sleep(script.delay * script.tokens)
    text = "".join(WORDS[at % len(WORDS)] for at in range(script.tokens))
    said: dict[str, Any] = {"text": text}
    if chat:
        said = {"message": {"role": "assistant", "content": text}}
    logprobs = _logprobs(text) if seen.body.get("logprobs") else None
    choices = [
        {"index": index, **said, "logprobs": logprobs, "finish_reason": "stop"}
        for index in range(_choices(seen.body))
    ]
    seen.produced = script.tokens * len(choices)
    usage = _usage(seen, script.tokens)
    return _base(seen.body, chunk=False, chat=chat) | {"choices": choices, "usage": usage}


if __name__ == "__main__":  # a replica of its own, to be killed and frozen: PORT
    with ScriptedUpstream(int(sys.argv[1])):
        threading.Event().wait()
