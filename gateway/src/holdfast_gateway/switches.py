"""The kill switch at the gateway: what was stopped, ended or barred is cut off within a second.

One thread asks the identity database for one number, the count of changes, five times a second.
When it is another one, it reads the switches, and proves again those whose answers are on their
way. What time alone ends, an agent's life and its hours, is judged here without the database.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from holdfast_gateway.access import Access
from holdfast_gateway.api.errors import ApiError, unavailable
from holdfast_gateway.api.stopping import key_ended, outside_hours, stopped
from holdfast_gateway.client import Inflight, Running
from holdfast_gateway.question import Question
from holdfast_trust.clock import Clock
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Principal
from holdfast_trust.proof import Refusal, timely
from holdfast_trust.store import LONGEST_CACHE_SECONDS, TrustStore
from holdfast_trust.switches import Switch

log = logging.getLogger("holdfast.gateway")

POLL_SECONDS: Final = 0.2
_FIRST_POLL_SECONDS: Final = 2.0
_LAST_POLL_SECONDS: Final = 2.0


class Switches:
    """What may not go on, kept up to date while this is entered."""

    def __init__(
        self,
        access: Access,
        inflight: Inflight,
        blind_seconds: float,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._access = access
        self._store: TrustStore = access.store
        self._inflight = inflight
        self._blind_seconds = blind_seconds
        self._clock = clock or Clock().now
        self._thrown: dict[tuple[str, str], Switch] = {}
        self._seen_at = time.perf_counter()
        self._tried = asyncio.Event()
        self._known = False
        # Of the thread alone: the number last seen, and when it was first seen.
        self._changes: int | None = None
        self._since = 0.0
        self._failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="switches", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._minding = asyncio.create_task(self._mind())
        with suppress(TimeoutError):  # a database that hangs keeps nobody from starting
            async with asyncio.timeout(_FIRST_POLL_SECONDS):
                await self._tried.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._minding.cancel()
        self._closing.set()
        # A database that hangs must not keep the gateway from stopping: the thread is a daemon.
        await asyncio.to_thread(self._thread.join, _LAST_POLL_SECONDS)

    def check(self, question: Question) -> None:
        """Raise ApiError 403 for a request that a switch bars, 503 before any could be read.

        Teams and models are stopped here alone: no token tells of them.
        """
        if not self._known:
            raise _unreadable()
        barred = self._on(question)
        if barred is not None:
            raise barred

    def model(self, model_id: str) -> ApiError | None:
        """Return the refusal for a model that is stopped, None for one that is not."""
        switch = self._thrown.get(("model", model_id))
        return None if switch is None else stopped(switch)

    def _on(self, question: Question) -> ApiError | None:
        if not self._thrown:
            return None
        principal = question.principal
        for named in (
            ("key", principal.token_id),
            (principal.kind, principal.name),
            ("user", principal.owner or ""),
            ("team", question.team or ""),
            ("model", question.call.model),
        ):
            switch = self._thrown.get(named)
            if switch is not None:
                return stopped(switch)
        return None

    def _watch(self) -> None:
        while not self._loop.is_closed():
            try:
                self._look()
            except Exception as error:  # whatever it is: without this thread nothing is stopped
                if not self._failing:  # once, not five times a second
                    known = isinstance(error, TrustError)
                    log.error("the switches cannot be read: %s", error, exc_info=not known)  # noqa: TRY400  # as known says
                self._failing = True
            if not self._tried.is_set():
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._tried.set)
            if self._closing.wait(POLL_SECONDS):
                return

    def _look(self) -> None:
        began = time.perf_counter()
        changes = self._store.changes()
        thrown: dict[tuple[str, str], Switch] | None = None
        if changes != self._changes:
            self._store.forget()
            thrown = {(each.kind, each.name): each for each in self._store.switches()}
        since = self._since if thrown is None else began
        doubtful = self._doubtful(changes, since)
        tokens = {running.question.principal.token_id for running in doubtful}
        proofs = self._store.recall_all(tokens) if tokens else {}
        # Last: what failed above is tried again with the next look.
        self._changes, self._since = changes, since
        if self._failing:
            log.info("the switches can be read again")
            self._failing = False
        self._loop.call_soon_threadsafe(self._apply, began, changes, thrown, doubtful, proofs)

    def _doubtful(self, changes: int, since: float) -> list[Running]:
        """Return those whose rights may have changed since they were proven.

        Who was proven after this number of changes came, and be it from the store's memory, was
        proven by what holds now.
        """
        sure = since + LONGEST_CACHE_SECONDS
        return [
            running
            for running in self._inflight.all
            if running.proven != changes and running.question.started <= sure
        ]

    def _apply(
        self,
        began: float,
        changes: int,
        thrown: dict[tuple[str, str], Switch] | None,
        doubtful: list[Running],
        proofs: dict[str, Principal | Refusal],
    ) -> None:
        self._seen_at = began
        if thrown is not None:
            self._thrown, self._known = thrown, True
            for running in self._inflight.all:
                barred = self._on(running.question)
                if barred is not None:
                    running.stop(barred)
        for running in doubtful:
            ended = self._judge(running.question, proofs[running.question.principal.token_id])
            if ended is not None:
                running.stop(ended)
            running.proven = changes

    def _judge(self, question: Question, proof: Principal | Refusal) -> ApiError | None:
        """Return why a request may not go on, by what its token proves now."""
        was = question.principal
        if not isinstance(proof, Principal):
            return _ended(proof)
        if proof.generations != was.generations:
            return _ended("revoked")
        if (proof.teams, proof.roles, proof.scope) == (was.teams, was.roles, was.scope):
            return None
        if question.team is not None and question.team not in proof.teams:
            return key_ended(f"the team '{question.team}' is not yours any more")
        decision = self._access.may_infer(proof, question.call.model, question.model)
        return None if decision.allowed else key_ended("its key may not use this model any more")

    async def _mind(self) -> None:
        """End what time ends, and, when the database is away for too long, everything."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = self._clock()
            for running in self._inflight.all:
                late = timely(running.question.principal, now)
                if late is not None:
                    running.stop(_ended(late))
            if time.perf_counter() - self._seen_at > self._blind_seconds:
                self._inflight.stop_all(_unreadable())


def _unreadable() -> ApiError:
    return unavailable(
        "Whether this may go on cannot be checked now. Try again in a moment.",
        code="identity_unavailable",
    )


def _ended(refusal: Refusal) -> ApiError:
    if refusal == "hours":
        return outside_hours()
    if refusal == "expired":
        return key_ended("the time of its key is over")
    if refusal == "disabled":
        return key_ended("whose key it is, or whom they act for, was barred")
    return key_ended("its key was revoked")
