"""The connections to the load balancers: one keep-alive pool over all of them."""

from types import TracebackType
from typing import Self

import aiohttp

from holdfast_gateway.chain.watch import Watch
from holdfast_gateway.config import Limits

# Below the 5 seconds after which uvicorn, in front of vLLM, closes an idle connection: a request
# written into a connection that is just being closed is lost, and has to be sent again.
_KEEPALIVE_SECONDS = 4.0
_ASIDE_SECONDS = 2.0


class Upstream:
    """A keep-alive pool over all upstreams. Use as an async context manager."""

    def __init__(self, limits: Limits) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy variable must not send prompts elsewhere
        )
        self._watches: dict[str, Watch] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for watch in self._watches.values():
            watch.close()
        await self._session.close()

    def watch(self, base: str) -> Watch:
        """Return the watch over the pool behind a balancer."""
        found = self._watches.get(base)
        if found is None:
            found = self._watches[base] = Watch(base, self.get)
        return found

    async def post(
        self, url: str, payload: bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a request and return once the head of the answer is there.

        Raises aiohttp.ClientError, or TimeoutError while connecting.
        """
        return await self._session.post(url, data=payload, headers=headers, allow_redirects=False)

    async def get(self, url: str) -> bytes:
        """Return what a balancer says of itself, within 2 seconds, or raise as post does."""
        timeout = aiohttp.ClientTimeout(total=_ASIDE_SECONDS)
        async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
            response.raise_for_status()
            return await response.read()
