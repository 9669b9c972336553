"""Leasing from the database in blocks: one exchange at a time, off the event loop's path."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from holdfast_gateway.budgets.account import Account, Hold
from holdfast_gateway.budgets.lease_rules import Outcome, Statement
from holdfast_gateway.budgets.lease_store import LeaseStore

log = logging.getLogger("holdfast.gateway")

T = TypeVar("T")

_TICK_SECONDS = 0.5
_AGAIN_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0
_HUNG_SECONDS = 2.0
_FORGET_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


class ShortError(Exception):
    """A budget has too little left for what was to be held of it."""

    def __init__(self, hold: Hold) -> None:
        super().__init__()
        self.hold = hold


class AwayError(Exception):
    """What is left of a budget cannot be known now."""


class _Waiter:
    """A request that needs more than is leased."""

    def __init__(self, holds: Sequence[Hold], done: asyncio.Future[None]) -> None:
        self.holds = holds
        self.done = done
        self.asked = False

    def short(self, wall: float) -> Hold | None:
        for hold in self.holds:
            if not hold.account.can_give(hold.amount, wall):
                return hold
        return None


class Leasing:
    """What this gateway leases. All but the exchange itself happens on the event loop.

    While exchanges fail, what is leased may be used for `grace_seconds`; then nothing.
    """

    def __init__(
        self,
        store: LeaseStore,
        gateway: str,
        grace_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._grace = grace_seconds
        self._monotonic = monotonic
        self.accounts: dict[str, Account] = {}
        self.forgotten = 0
        self._waiters: list[_Waiter] = []
        self._kick = asyncio.Event()
        self._heard = (0.0, 0.0)  # the database's time, and ours when we heard it
        self._failing_since: float | None = None
        self._asked_at: float | None = None
        self._looked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to tell the database what changes."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Give back what is leased and write what was spent; what fails stays counted as spent."""
        self._closing = True
        self._kick.set()
        if self._task is not None:
            # Never a second exchange beside one that hangs: the older could be entered last.
            done, _ = await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            if not done:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                log.warning("budgets: the database does not answer; leases stay counted as spent")
                return
        now = self._monotonic()
        for account in self.accounts.values():
            account.used_at = float("-inf")
        statements = [each.state(now, ()) for each in self.accounts.values() if each.due(now)]
        if not statements:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await _in_thread(lambda: self._store.exchange(self._gateway, statements))
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning(
                "%d leases of budgets could not be given back and stay counted as spent: %s",
                len(statements),
                _first_line(error),
            )

    def wall(self) -> float:
        """Return the database's time by now, as far as it can be told from here."""
        said, heard_at = self._heard
        return said + self._monotonic() - heard_at

    def take(self, holds: Sequence[Hold]) -> bool:
        """Reserve all, or nothing where the leased part of one does not suffice.

        Raises AwayError when the database has been away for longer than the grace.
        """
        now = self._monotonic()
        if self._away(now) > self._grace:
            raise AwayError
        said, heard_at = self._heard
        wall = said + now - heard_at
        for hold in holds:
            if not hold.account.can_give(hold.amount, wall):
                return False
        for hold in holds:
            hold.account.take(hold, now)
        return True

    async def lease(self, holds: Sequence[Hold]) -> None:
        """Reserve all with what can be leased in a moment; raise ShortError or AwayError."""
        loop = asyncio.get_running_loop()
        for hold in holds:
            if hold.amount > hold.account.budget.limit:
                raise ShortError(hold)
        if self._away(self._monotonic()) > _PATIENCE_SECONDS:
            raise AwayError
        waiter = _Waiter(holds, loop.create_future())
        self._waiters.append(waiter)
        self._kick.set()
        patience = loop.call_later(_PATIENCE_SECONDS, self._give_up, waiter)
        try:
            await waiter.done
        except BaseException:
            if waiter.done.done() and not waiter.done.cancelled() and not waiter.done.exception():
                give_back(holds)  # reserved in the moment in which the client went away
            raise
        finally:
            patience.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _away(self, now: float) -> float:
        """Return for how long the database has not answered; 0 when it does."""
        since = self._failing_since
        if since is None:
            since = self._asked_at
            if since is None or now - since < _HUNG_SECONDS:
                return 0.0
        return now - since

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter.done.done():
            return
        short = waiter.short(self.wall())
        unknown = self._failing_since is not None or not waiter.asked
        if unknown or short is None:
            waiter.done.set_exception(AwayError())
        else:
            waiter.done.set_exception(ShortError(short))

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._kick.wait()
            if self._closing:
                return
            self._kick.clear()
            if self._failing_since is not None:
                await asyncio.sleep(_AGAIN_SECONDS)
            try:
                await self._exchange()
            except (SQLAlchemyError, OSError) as error:
                if self._failing_since is None:
                    self._failing_since = self._asked_at or self._monotonic()
                    log.error("budgets cannot be leased: %s", _first_line(error))  # noqa: TRY400  # said once, by the error itself
            except Exception:
                self._failing_since = self._failing_since or self._monotonic()
                log.exception("budgets: defect")
            finally:
                self._asked_at = None

    async def _exchange(self) -> None:
        now = self._monotonic()
        wall = self.wall()
        needs: dict[str, list[int]] = {}
        self._serve(self._waiters, set())  # with what came back since they began to wait
        waiting = [each for each in self._waiters if not each.done.done()]
        for waiter in waiting:
            for hold in waiter.holds:
                hold.account.used_at = now  # nothing is idle that somebody waits with
                if not hold.account.can_give(hold.amount, wall):
                    needs.setdefault(hold.account.key, []).append(hold.amount)
        keep = self._failing_since is not None
        statements = [self.accounts[key].state(now, needs[key], keep=keep) for key in needs]
        tick = asyncio.get_running_loop().time()
        if tick - self._looked_at >= _TICK_SECONDS:  # not for each request that waits
            self._looked_at = tick
            statements += [
                account.state(now, (), keep=keep)
                for account in self.accounts.values()
                if account.key not in needs and account.due(now)
            ]
        if not statements and self._failing_since is None:
            self._forget(now)
            return
        self._asked_at = now
        outcomes = await _in_thread(lambda: self._store.exchange(self._gateway, statements))
        if not statements:  # nothing but the question whether it is there again
            await _in_thread(self._store.now)
        if self._failing_since is not None:
            log.warning("budgets can be leased again")
        self._failing_since = None
        self._hear(statements, outcomes)
        self._serve(waiting, {outcome.account for outcome in outcomes})
        if any(not each.done.done() for each in waiting):
            granted = any(outcome.granted for outcome in outcomes)
            delay = 0 if granted else _AGAIN_SECONDS
            asyncio.get_running_loop().call_later(delay, self._kick.set)

    def _hear(self, statements: Iterable[Statement], outcomes: Sequence[Outcome]) -> None:
        now = self._monotonic()
        by_account = {outcome.account: outcome for outcome in outcomes}
        for statement in statements:
            outcome = by_account[statement.account]
            self.accounts[statement.account].hear(statement, outcome, now)
            self._heard = (outcome.now, now)

    def _serve(self, waiting: Iterable[_Waiter], asked: set[str]) -> None:
        """Let those go on, first come first served, who can; and those who have nothing to hope."""
        wall = self.wall()
        for waiter in waiting:
            if waiter.done.done():
                continue
            short = waiter.short(wall)
            if short is None:
                now = self._monotonic()
                for hold in waiter.holds:
                    hold.account.take(hold, now)
                waiter.done.set_result(None)
                continue
            account = short.account
            waiter.asked = waiter.asked or account.key in asked
            if account.key in asked and account.hopeless(short.amount):
                waiter.done.set_exception(ShortError(short))

    def _forget(self, now: float) -> None:
        """Drop accounts nobody has used for a while."""
        old = [
            key
            for key, account in self.accounts.items()
            if account.empty and now - max(account.used_at, account.stated_at) > _FORGET_SECONDS
        ]
        for key in old:
            del self.accounts[key]
        self.forgotten += len(old)


def give_back(holds: Iterable[Hold]) -> None:
    """Free all that was reserved."""
    for hold in holds:
        hold.account.release(hold, hold.amount)


async def _in_thread(call: Callable[[], T]) -> T:
    """Run a call in a daemon thread: one that hangs must not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only if T is

    def work() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=work, name="budgets", daemon=True).start()
    return await future


def _first_line(error: BaseException) -> str:
    return (str(getattr(error, "orig", None) or error) or type(error).__name__).splitlines()[0]
