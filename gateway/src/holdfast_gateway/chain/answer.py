"""Giving one answer: from a pool to the client, whole or part by part."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import Send

from holdfast_gateway.api.endpoints import ENDPOINTS
from holdfast_gateway.api.errors import ApiError, upstream_failed, upstream_timeout
from holdfast_gateway.api.usage import read_whole
from holdfast_gateway.chain.attempt import Attempt
from holdfast_gateway.chain.hedging import Race
from holdfast_gateway.chain.reply import Reply
from holdfast_gateway.chain.streaming import Streaming
from holdfast_gateway.chain.upstream import Upstream
from holdfast_gateway.config import Limits
from holdfast_gateway.metering.transaction import Transaction
from holdfast_gateway.question import Question

log = logging.getLogger("holdfast.gateway")

_LAST_WORD_SECONDS = 5.0


class Answer:
    """One answer on its way. Whatever ends it, the transaction is ended with it.

    `steering` is what the site itself puts into the body.
    """

    def __init__(  # noqa: PLR0913  # the two sides, the question and the bookkeeping
        self,
        *,
        upstream: Upstream,
        base: str,
        question: Question,
        steering: Mapping[str, object],
        limits: Limits,
        transaction: Transaction,
        send: Send,
    ) -> None:
        self._upstream = upstream
        self._base = base
        self._question = question
        self._steering = steering
        self._limits = limits
        self._transaction = transaction
        self._reply = Reply(send)

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What is added to the head of the answer."""
        return self._reply.headers

    @headers.setter
    def headers(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        self._reply.headers = headers

    async def give(self) -> None:
        """Fetch the answer and pass it on; raise ApiError while the client has seen nothing yet."""
        call = self._question.call
        self._transaction.sent = True
        try:
            if call.stream:
                await self._streaming().give()
            else:
                await self._give_whole()
        except ApiError as error:
            await self.fail(error)
        except TimeoutError:
            message = f"The servers of '{call.model}' did not answer in time."
            await self.fail(upstream_timeout(message))

    async def fail(self, error: ApiError) -> None:
        """End with an error: raised if nothing was sent, else as the last event, without [DONE]."""
        started = self._reply.started
        self._transaction.end("error", 200 if started else error.status, error.code)
        if not started:
            if error.status < 500 or error.status == 503:
                self._transaction.sent = False  # refused: nothing was generated
            raise error
        if not self._question.call.stream:
            return  # cut off, shorter than announced: an event would be read as a part of it
        with suppress(TimeoutError):  # a client that reads nothing does not hold up a shutdown
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                shape = ENDPOINTS[self._question.call.endpoint].shape
                await self._reply.write(error.event(shape, self._question.request_id))
                await self._reply.finish()

    def _streaming(self) -> Streaming:
        return Streaming(
            upstream=self._upstream,
            base=self._base,
            question=self._question,
            steering=self._steering,
            limits=self._limits,
            transaction=self._transaction,
            reply=self._reply,
        )

    async def _give_whole(self) -> None:
        call = self._question.call
        payload = call.payload(self._steering)

        def start(elsewhere: bool) -> Attempt:  # noqa: FBT001  # Race.Start
            return Attempt(
                self._upstream,
                self._base + call.endpoint,
                payload,
                request_id=self._question.request_id,
                model=call.model,
                stream=False,
                elsewhere=elsewhere,
            )

        watch = self._upstream.watch(self._base)
        race = Race(start, watch, self._limits, self._transaction, deadline=None)
        attempt = await race.run()
        try:
            self._transaction.tokens = read_whole(call.endpoint, attempt.body)
        except ValueError as error:
            raise upstream_failed(
                f"The server of '{call.model}' sent an answer that is not JSON."
            ) from error
        finally:
            attempt.close()
        self._transaction.end("done", 200)  # before sending: the tokens are spent in any case
        if self._transaction.on_whole is not None:
            self._transaction.on_whole()
        with suppress(TimeoutError):  # a client that reads nothing is left
            await self._reply.whole(attempt.body, self._limits.idle_seconds)
