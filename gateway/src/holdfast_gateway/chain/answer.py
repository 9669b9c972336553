"""Giving one answer: from the upstream to the client, whole or part by part."""

import asyncio
import json
import logging
from contextlib import suppress

import aiohttp
from starlette.types import Send

from holdfast_gateway.api.endpoints import ENDPOINTS
from holdfast_gateway.api.errors import ApiError, interrupted, upstream_failed, upstream_timeout
from holdfast_gateway.api.refusals import read_refusal
from holdfast_gateway.api.usage import read_whole
from holdfast_gateway.api.views import View, view_for
from holdfast_gateway.chain.sse import EventSplitter, EventTooLargeError, data_of
from holdfast_gateway.chain.upstream import Upstream
from holdfast_gateway.config import Limits
from holdfast_gateway.metering.transaction import Transaction
from holdfast_gateway.question import Question

log = logging.getLogger("holdfast.gateway")

_DONE = b"[DONE]"
_LAST_WORD_SECONDS = 5.0


class Answer:
    """One answer on its way. Whatever ends it, the transaction is ended with it."""

    def __init__(  # noqa: PLR0913  # the two sides, the question and the bookkeeping
        self,
        *,
        upstream: Upstream,
        base: str,
        question: Question,
        payload: bytes,
        limits: Limits,
        transaction: Transaction,
        send: Send,
    ) -> None:
        self._upstream = upstream
        self._base = base
        self._call = question.call
        self._request_id = question.request_id
        self._payload = payload
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self._limits = limits
        self._transaction = transaction
        self._send = send
        self._started = False
        self._writing = False

    async def give(self) -> None:
        """Fetch the answer and pass it on; raise ApiError while the client has seen nothing yet."""
        try:
            await self._give()
        except ApiError as error:
            await self.fail(error)

    async def fail(self, error: ApiError) -> None:
        """End with an error: raised if nothing was sent, else as the last event, without [DONE]."""
        self._transaction.end("error", 200 if self._started else error.status)
        if not self._started:
            raise error
        with suppress(TimeoutError):  # a client that reads nothing does not hold up a shutdown
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                shape = ENDPOINTS[self._call.endpoint].shape
                await self._write(error.event(shape, self._request_id))
                await self._finish()

    async def _give(self) -> None:
        response: aiohttp.ClientResponse | None = None
        try:
            self._transaction.sent = True
            async with asyncio.timeout(self._limits.first_byte_seconds) as deadline:
                response = await self._upstream.post(
                    self._base, self._call.endpoint, self._payload, self._request_id
                )
                if response.status != 200:
                    raise await self._refusal(response)
                if self._call.stream:
                    await self._pass_stream(response, deadline)
                else:
                    await self._pass_whole(response)
        except TimeoutError as error:
            if self._writing:  # the client reads nothing: as good as gone, and it holds a replica
                self._transaction.end("aborted", 200)
                return
            raise upstream_timeout(
                f"The servers of '{self._call.model}' did not answer in time."
            ) from error
        except (aiohttp.ClientError, EventTooLargeError) as error:
            log.warning("%s: upstream %s: %s", self._request_id, self._base, error)
            raise self._broken() from error
        finally:
            if response is not None:
                response.close()  # an answer not read to its end is cancelled at the replica

    async def _refusal(self, response: aiohttp.ClientResponse) -> ApiError:
        body = await response.content.read(65536)
        log.info(
            "%s: upstream %s answered %d: %.500r",
            self._request_id,
            self._base,
            response.status,
            body,
        )
        return read_refusal(
            response.status, body, response.headers.get("Retry-After"), self._call.model
        )

    async def _pass_whole(self, response: aiohttp.ClientResponse) -> None:
        body = await response.read()
        try:
            self._transaction.tokens = read_whole(self._call.endpoint, json.loads(body))
        except ValueError as error:
            raise upstream_failed(
                f"The server of '{self._call.model}' sent an answer that is not JSON."
            ) from error
        self._transaction.end("done", 200)  # before sending: the tokens are spent in any case
        await self._start(b"application/json", len(body))
        await self._send({"type": "http.response.body", "body": body})

    async def _pass_stream(
        self, response: aiohttp.ClientResponse, deadline: asyncio.Timeout
    ) -> None:
        if not response.content_type.startswith("text/event-stream"):
            raise self._broken()
        loop = asyncio.get_running_loop()
        view = view_for(self._call)
        splitter = EventSplitter()
        try:
            async for block in response.content.iter_any():
                events = splitter.feed(block)
                # Headers wait for the first event: until then a failure can be a plain HTTP error.
                passed = b"".join([self._see(event, view) for event in events])
                if passed:
                    await self._write(passed)
                if view.failure is not None:
                    log.warning("%s: upstream failed: %s", self._request_id, view.failure)
                    raise self._broken()
                if events:  # a comment keeps the line open as well as a token does
                    deadline.reschedule(loop.time() + self._limits.idle_seconds)
        finally:
            self._transaction.tokens = view.tally.tokens
        if not view.complete:
            raise self._broken()
        self._transaction.end("done", 200)
        await self._finish()

    def _see(self, event: bytes, view: View) -> bytes:
        """Return what to pass on of one event."""
        if view.failure is not None:
            return b""
        data = data_of(event)
        if data is None:
            return event + b"\n\n" if self._started else b""
        if data == _DONE:
            if not view.complete:
                view.failure = "[DONE] before the end"
                return b""
            passed = _DONE if view.ends_with_done else None
        else:
            passed = view.see(data)
            self._transaction.first_token()
        if view.complete and (data == _DONE or not view.ends_with_done):
            self._transaction.tokens = view.tally.tokens
            # Before it is sent: a client may hang up on the last event, and that is no abort.
            self._transaction.end("done", 200)
        return view.frame(passed) if passed else b""

    def _broken(self) -> ApiError:
        if self._started:
            return interrupted(
                f"The server of '{self._call.model}' failed in mid-answer; what came so far is "
                f"incomplete. Ask again. Request: {self._request_id}."
            )
        return upstream_failed(
            f"The server of '{self._call.model}' failed before it answered. Ask again."
        )

    async def _write(self, data: bytes) -> None:
        self._writing = True
        if not self._started:
            await self._start(b"text/event-stream; charset=utf-8", None)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._writing = False

    async def _start(self, content_type: bytes, length: int | None) -> None:
        self._started = True
        headers = [(b"content-type", content_type), *self.headers]
        if length is None:
            headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        else:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})
