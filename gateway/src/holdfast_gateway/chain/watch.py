"""Which replicas of a pool are ill: asked of the balancer, and only while somebody waits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from holdfast_gateway.chain.balancer import WORKERS_PATH, Workers, read_workers

log = logging.getLogger("holdfast.gateway")

_EVERY_SECONDS = 1.0
_SECOND_ATTEMPTS = 16
_NONE: frozenset[str] = frozenset()


class Waiting(Protocol):
    """Somebody who waits for a replica."""

    def replicas_fell_ill(self, newly: frozenset[str], all_sick: frozenset[str]) -> None:
        """Hear which replicas the balancer no longer uses, as host:port."""


class Watch:
    """Asks one balancer for its workers each second while there is somebody to tell.

    What answers within a second costs no question. A replica that leaves the list in good health is
    being drained, and finishes what it has: that is no illness.
    """

    def __init__(self, base: str, get: Callable[[str], Awaitable[bytes]]) -> None:
        self._base = base
        self._get = get
        self._waiting: set[Waiting] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._known_sick = _NONE
        self._closed = False
        self._silent = False
        self.second_attempts = asyncio.Semaphore(_SECOND_ATTEMPTS)
        """Held by who asks a second replica on suspicion, until it answers."""

    def follow(self, waiting: Waiting) -> None:
        """Tell somebody from now on."""
        self._waiting.add(waiting)
        if self._timer is None and self._task is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._look)

    def leave(self, waiting: Waiting) -> None:
        """Tell them no more."""
        self._waiting.discard(waiting)

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._waiting:
            self._task = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        try:
            self._tell(read_workers(await self._get(self._base + WORKERS_PATH)))
            self._silent = False
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if not self._silent:  # once, not each second
                log.warning("%s does not list its workers: %s", self._base, error or "too late")
            self._silent = True
        finally:
            self._task = None
            if not self._closed:
                self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self._look)

    def _tell(self, workers: Workers) -> None:
        newly = workers.sick - self._known_sick
        self._known_sick = workers.sick
        if newly:
            log.warning("%s no longer uses %s", self._base, ", ".join(sorted(newly)))
        if workers.sick:
            for each in tuple(self._waiting):
                each.replicas_fell_ill(newly, workers.sick)
