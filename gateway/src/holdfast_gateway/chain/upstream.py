"""The connection to the load balancers: one pool, few headers, and failures in our words."""

import asyncio
from types import TracebackType
from typing import Self

import aiohttp

from holdfast_gateway.api.errors import unavailable, upstream_timeout
from holdfast_gateway.config import Limits

# Below the 5 seconds after which uvicorn, in front of vLLM, closes an idle connection: a request
# written into a connection that is just being closed is lost and must not be sent again.
_KEEPALIVE_SECONDS = 4.0
_RETRY_SECONDS = 0.05


class Upstream:
    """A keep-alive pool over all upstreams. Use as an async context manager."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # a proxy variable must not send prompts elsewhere
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(
        self, base: str, path: str, payload: bytes, request_id: str
    ) -> aiohttp.ClientResponse:
        """Send a request and return once the head of the answer is there.

        The headers are ours alone: nothing of the client's passes, neither its Authorization nor a
        header that smg would obey. Sent a second time only if nobody accepted the connection, so
        that nothing is ever generated, or billed, twice.
        """
        for last in (False, True):
            try:
                return await self._session.post(
                    base + path,
                    data=payload,
                    headers={
                        "Content-Type": "application/json",
                        "Accept-Encoding": "identity",
                        "User-Agent": "holdfast-gateway",
                        "X-Request-Id": request_id,
                    },
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError as error:
                if last or not isinstance(error.os_error, ConnectionRefusedError):
                    raise unavailable(
                        "The servers of this model cannot be reached. Try again in a moment; if "
                        "it lasts, your operator finds the cause with 'holdfast audit'."
                    ) from error
                await asyncio.sleep(_RETRY_SECONDS)
            except (aiohttp.ServerTimeoutError, TimeoutError) as error:
                raise upstream_timeout(
                    "The servers of this model accept no connection in time."
                ) from error
            except aiohttp.ClientError as error:
                raise unavailable(
                    "The server of this model closed the connection before it answered."
                ) from error
        raise AssertionError("the second round of the loop above returns or raises")
