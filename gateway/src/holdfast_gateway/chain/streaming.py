"""Passing a stream on, event by event, from however many replicas it takes."""

import asyncio
import json
import logging
from collections.abc import Mapping

import aiohttp

from holdfast_gateway.api.errors import ApiError, interrupted
from holdfast_gateway.api.views import view_for
from holdfast_gateway.chain.attempt import Attempt
from holdfast_gateway.chain.hedging import Race
from holdfast_gateway.chain.pulse import Pulse
from holdfast_gateway.chain.reply import Reply
from holdfast_gateway.chain.resumption import (
    ENDPOINT,
    MismatchError,
    Retelling,
    continuation,
    event_of,
    trace_of,
)
from holdfast_gateway.chain.sse import EventTooLargeError, data_of
from holdfast_gateway.chain.trace import Point, Trace
from holdfast_gateway.chain.upstream import Upstream
from holdfast_gateway.config import Limits
from holdfast_gateway.metering.transaction import Transaction
from holdfast_gateway.question import Question

log = logging.getLogger("holdfast.gateway")

_DONE = b"[DONE]"
_LAST_EVENT = b"data: [DONE]\n\n"
_SICK_SECONDS = 2.0  # of silence, from a replica that the balancer gave up
_MOST_RESUMPTIONS = 3


class LostError(Exception):
    """The stream of an attempt broke off before its end."""


class Streaming:
    """One streamed answer: its attempts before the first byte, and those that go on with it."""

    def __init__(  # noqa: PLR0913  # the two sides, the question and the bookkeeping
        self,
        *,
        upstream: Upstream,
        base: str,
        question: Question,
        steering: Mapping[str, object],
        limits: Limits,
        transaction: Transaction,
        reply: Reply,
    ) -> None:
        self._upstream = upstream
        self._base = base
        self._call = question.call
        self._request_id = question.request_id
        self._steering = steering
        self._limits = limits
        self._transaction = transaction
        self._reply = reply
        own = None if question.model is None else question.model.ttft_seconds
        self._ttft = own or limits.ttft_seconds
        self._trace = trace_of(question.call)
        self._view = view_for(question.call, self._trace)
        self._retelling: Retelling | None = None
        self._replica: str | None = None
        self._sick = False

    async def give(self) -> None:
        """Pass the whole stream on; raise ApiError or TimeoutError where there is none.

        A client that reads nothing is left, and the transaction ended as aborted.
        """
        ids = {} if self._trace is None else {"return_token_ids": True}
        payload = self._call.payload({**self._steering, **ids})
        attempt: Attempt | None = await self._race(self._call.endpoint, payload).run()
        resumptions = 0
        while attempt is not None:
            try:
                await self._pass(attempt)
                break
            except LostError as lost:
                log.warning("%s: %s: %s", self._request_id, attempt.replica, lost)
            finally:
                attempt.close()
                self._transaction.tokens = self._view.tally.tokens
            resumptions += 1
            attempt = await self._resume(last=resumptions > _MOST_RESUMPTIONS)

    def replicas_fell_ill(self, newly: frozenset[str], all_sick: frozenset[str]) -> None:
        """Hear from the watch which replicas the balancer gave up."""
        del newly
        self._sick = self._replica in all_sick

    def _race(self, endpoint: str, payload: bytes) -> Race:
        def start(elsewhere: bool) -> Attempt:  # noqa: FBT001  # Race.Start
            return Attempt(
                self._upstream,
                self._base + endpoint,
                payload,
                request_id=self._request_id,
                model=self._call.model,
                stream=True,
                elsewhere=elsewhere,
            )

        watch = self._upstream.watch(self._base)
        return Race(start, watch, self._limits, self._transaction, deadline=self._ttft)

    async def _pass(self, attempt: Attempt) -> None:
        self._replica, self._sick = attempt.replica, False
        watch = self._upstream.watch(self._base)
        pulse: Pulse | None = None
        try:
            watch.follow(self)
            async with asyncio.timeout(None) as interrupt:
                shortest = min(self._limits.stall_seconds, self._limits.idle_seconds)
                pulse = Pulse(interrupt, self._patience, shortest)
                await self._pass_events(attempt, pulse)
        except TimeoutError as error:
            if not self._reply.writing:
                msg = "silent for too long"
                raise LostError(msg) from error
            # The client reads nothing: as good as gone, and it holds a replica.
            self._transaction.tokens = self._view.tally.tokens
            self._transaction.end("aborted", 200)
        except (aiohttp.ClientError, EventTooLargeError) as error:
            raise LostError(repr(error)) from error
        finally:
            watch.leave(self)
            if pulse is not None:
                pulse.stop()

    def _patience(self) -> float:
        trace = self._trace
        if self._reply.writing or trace is None or not trace.exact:
            return self._limits.idle_seconds
        return _SICK_SECONDS if self._sick else self._limits.stall_seconds

    async def _pass_events(self, attempt: Attempt, pulse: Pulse) -> None:
        view = self._view
        async for events in attempt.events():
            passed = b"".join([self._see(event, pulse) for event in events])
            if view.complete and not view.ends_with_done:
                self._close()
            if passed:
                began = asyncio.get_running_loop().time()
                await self._reply.write(passed)
                pulse.excuse(began)  # no beat: what passed may be a comment alone
            if view.failure is not None:
                raise LostError(view.failure)
        if not view.complete:
            msg = "closed before the end"
            raise LostError(msg)
        await self._end()

    def _see(self, event: bytes, pulse: Pulse) -> bytes:
        """Return what to pass on of one event."""
        view = self._view
        if view.failure is not None:
            return b""
        data = data_of(event)
        if data is None:
            # A comment of the balancer's is no sign of life of the replica.
            return event + b"\n\n" if self._reply.started else b""
        pulse.beat()
        if data == _DONE:
            if not view.complete:
                view.failure = "[DONE] before the end"
            return b""  # sent once, at the end
        retold: bytes | None = data
        says = True
        if self._retelling is not None:
            try:
                retold, says = self._retelling.retell(data)
            except MismatchError as error:
                log.warning("%s: cannot go on: %s", self._request_id, error)
                view.failure = str(error)
                if self._trace is not None:
                    self._trace.exact = False
                return b""
        seen = None if retold is None else view.see(retold)
        self._transaction.first_token()
        if self._transaction.on_count is not None:
            self._transaction.count(view.tally.tokens)
        return view.frame(seen) if seen and says else b""

    def _close(self) -> None:
        """Record the end, before it is sent: a client may hang up on it, and that is no abort."""
        self._transaction.tokens = self._view.tally.tokens
        self._transaction.end("done", 200)

    async def _end(self) -> None:
        self._close()
        if self._view.ends_with_done:
            await self._reply.write(_LAST_EVENT)
        await self._reply.finish()

    async def _resume(self, *, last: bool) -> Attempt | None:
        """Return the attempt that goes on with a lost stream, None if nothing was missing."""
        view, trace = self._view, self._trace
        if trace is not None and trace.exact and trace.finished:
            await self._count_ourselves(trace)
            return None
        if view.complete:
            await self._end()
            return None
        point = None if trace is None or last else trace.point()
        if trace is None or point is None:
            raise self._broken()
        self._transaction.resumed = True
        trace.rewind(point)
        self._retelling = Retelling(self._call, trace, point)
        view.failure = None
        log.warning("%s: goes on elsewhere after %d tokens", self._request_id, point.tokens)
        try:
            return await self._ask_for_rest(trace, point)
        except (ApiError, TimeoutError) as error:
            raise self._broken() from error

    async def _ask_for_rest(self, trace: Trace, point: Point) -> Attempt:
        body = continuation(self._call, trace, point, self._steering)
        payload = json.dumps(body, separators=(",", ":")).encode()
        return await self._race(ENDPOINT, payload).run(elsewhere=True)

    async def _count_ourselves(self, trace: Trace) -> None:
        """Say the end of a stream of which only the sum, or [DONE], is missing."""
        if not self._view.complete:
            self._view.failure = None
            seen = self._view.see(event_of(trace, [], trace.tokens))
            if seen is not None:
                await self._reply.write(self._view.frame(seen))
        await self._end()

    def _broken(self) -> ApiError:
        return interrupted(
            f"The server of '{self._call.model}' failed in mid-answer, and no other could go on "
            f"with it; what came so far is incomplete. Ask again. Request: {self._request_id}."
        )
