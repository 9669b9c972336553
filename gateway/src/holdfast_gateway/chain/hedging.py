"""Until the first byte: one attempt, and where it fails or is late a second one elsewhere."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine

from holdfast_gateway.api.errors import ApiError
from holdfast_gateway.chain.attempt import Attempt, AttemptFailedError
from holdfast_gateway.chain.balancer import Again
from holdfast_gateway.chain.watch import Watch
from holdfast_gateway.config import Limits
from holdfast_gateway.metering.transaction import Transaction

log = logging.getLogger("holdfast.gateway")

_MOST_OTHERS = 2
_A_MOMENT = 0.2

Start = Callable[[bool], Attempt]
"""Makes an attempt that is not yet begun; the argument asks for another replica."""


class Race:
    """Two attempts at most, of which the first to answer wins and the other is cancelled.

    A third is made only if a replica falls ill while the second is under way.

    One that nobody took, because the balancer or all its replicas are away, is made anew for
    `recover_seconds` and counts once. The second is begun when

    - the first is lost;
    - a stream's first event is not there after `ttft_seconds`;
    - the balancer gives up the replica that has the first, or any of the pool's while it is not
      known which one has it. The first byte of an answer that is no stream is the whole answer, so
      this is all that can be known of its replica.

    Nothing was sent to the client when it is run.
    """

    def __init__(
        self,
        start: Start,
        watch: Watch,
        limits: Limits,
        transaction: Transaction,
        *,
        deadline: float | None,
    ) -> None:
        self._start = start
        self._watch = watch
        self._limits = limits
        self._transaction = transaction
        self._deadline = deadline
        self._first: Attempt | None = None
        self._others: list[asyncio.Task[Attempt]] = []
        self._allowed = 1
        self._won: Attempt | None = None
        self._patience: asyncio.Timeout | None = None

    async def run(self, *, elsewhere: bool = False) -> Attempt:
        """Return the attempt that answers first, its answer begun; the caller closes it.

        Raises ApiError if all failed, TimeoutError after `first_byte_seconds`.
        """
        loop = asyncio.get_running_loop()
        timer = None
        if self._deadline is not None:
            timer = loop.call_later(self._deadline, self._suspect)
        self._watch.follow(self)
        try:
            async with asyncio.timeout(self._limits.first_byte_seconds) as self._patience:
                first = await self._try(elsewhere=elsewhere)
                if self._won is not None and self._won is not first:
                    self._won.close()  # both at once
                self._won = first
        except TimeoutError:
            if self._won is None:
                raise
        except BaseException:
            if self._won is not None:  # called off in the moment in which it won
                self._won.close()
            raise
        finally:
            self._watch.leave(self)
            if timer is not None:
                timer.cancel()
            for other in self._others:
                other.cancel()
            if self._first is not None and self._first is not self._won:
                self._first.close()
        self._transaction.replica = self._won.replica
        return self._won

    def replicas_fell_ill(self, newly: frozenset[str], all_sick: frozenset[str]) -> None:
        """Hear from the watch which replicas the balancer gave up."""
        if newly and self._others:
            # The second may have gone to the very replica that fell ill since.
            self._allowed = _MOST_OTHERS
        mine = None if self._first is None else self._first.replica
        if (mine in all_sick) if mine is not None else newly:
            self._hedge("the balancer gave up a replica", self._go_elsewhere())

    async def _try(self, *, elsewhere: bool) -> Attempt:
        def first() -> Attempt:
            self._first = self._start(elsewhere)
            return self._first

        try:
            return await self._begun(first)
        except AttemptFailedError as failure:
            return await self._rescue(failure)

    async def _begun(self, make: Callable[[], Attempt]) -> Attempt:
        """Return an attempt that answers, made anew while there is nobody to take it."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._limits.recover_seconds
        while True:
            attempt = make()
            self._transaction.attempts += 1
            try:
                await attempt.begin()
            except AttemptFailedError as failure:
                attempt.close()
                if failure.again is not Again.LATER or loop.time() >= give_up:
                    raise
                self._transaction.attempts -= 1  # nobody got it
            except BaseException:
                attempt.close()
                raise
            else:
                return attempt
            await _a_moment()

    async def _rescue(self, failure: AttemptFailedError) -> Attempt:
        """Go on with the second attempt after the first has failed; it may be on its way."""
        if not self._others:
            if failure.again is not Again.ELSEWHERE:
                raise failure.error
            self._begin_other(self._go_after_a_moment())
        while pending := [other for other in self._others if not other.done()]:
            await asyncio.wait(pending)
        if self._won is not None:
            return self._won
        last = self._others[-1].exception()
        second = last if isinstance(last, AttemptFailedError) else failure
        raise _worth_telling(failure, second) from last

    def _suspect(self) -> None:
        self._hedge("no first token in time", self._go_in_turn())

    def _hedge(self, reason: str, way: Coroutine[None, None, Attempt]) -> None:
        if len(self._others) >= self._allowed or self._won is not None:
            way.close()
            return
        log.info("asking another replica: %s", reason)
        self._transaction.hedged = True
        self._begin_other(way)

    def _begin_other(self, way: Coroutine[None, None, Attempt]) -> None:
        other = asyncio.ensure_future(way)
        other.add_done_callback(_take_note)
        self._others.append(other)

    async def _go_after_a_moment(self) -> Attempt:
        await _a_moment()  # a balancer that was killed still takes connections for an instant
        return await self._go_elsewhere()

    async def _go_in_turn(self) -> Attempt:
        # Where all are late it is the pool that is slow, and twice the work would not help it.
        async with self._watch.second_attempts:
            return await self._go_elsewhere()

    async def _go_elsewhere(self) -> Attempt:
        second = await self._begun(lambda: self._start(True))
        if self._won is None and self._patience is not None and not self._patience.expired():
            self._won = second
            self._patience.reschedule(asyncio.get_running_loop().time())
        else:
            second.close()
        return second


async def _a_moment() -> None:
    jitter = random.uniform(0.5, 1.5)  # noqa: S311  # so that not all ask at once
    await asyncio.sleep(_A_MOMENT * jitter)


def _take_note(second: asyncio.Task[Attempt]) -> None:
    if not second.cancelled() and second.exception() is not None:
        log.info("the second attempt failed: %s", second.exception())


def _worth_telling(first: AttemptFailedError, second: AttemptFailedError) -> ApiError:
    """Return the error the client can do more with: a replica's, not that of an empty pool."""
    return second.error if second.again is Again.NO else first.error
