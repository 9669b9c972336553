"""One sending of a request to a pool, and as much of the answer as has come."""

import json
import logging
from collections.abc import AsyncIterator

import aiohttp

from holdfast_gateway.api.errors import ApiError, unavailable, upstream_failed, upstream_timeout
from holdfast_gateway.api.refusals import TOLD, read_refusal
from holdfast_gateway.chain.balancer import Again, again_after, headers, replica_of
from holdfast_gateway.chain.sse import EventSplitter, EventTooLargeError, data_of
from holdfast_gateway.chain.upstream import Upstream

log = logging.getLogger("holdfast.gateway")

_REFUSAL_BYTES = 65536
_LARGEST_ANSWER = 128 * 1024 * 1024
_DONE = b"[DONE]"
_FAILURES = (_DONE, b'{"error"', b'{"type":"error"')


class AttemptFailedError(Exception):
    """An attempt came to nothing; `error` is what the client is told if nothing else helps."""

    def __init__(self, error: ApiError, again: Again) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again


class Attempt:
    """One request to one balancer. `begin` it, read the answer, and `close` it in any case.

    `model` is named in errors. `elsewhere` asks for another replica than an earlier attempt had.
    """

    def __init__(  # noqa: PLR0913  # where to, what, for whom
        self,
        upstream: Upstream,
        url: str,
        payload: bytes,
        *,
        request_id: str,
        model: str,
        stream: bool,
        elsewhere: bool = False,
    ) -> None:
        self._upstream = upstream
        self._url = url
        self._payload = payload
        self._request_id = request_id
        self._model = model
        self._stream = stream
        self._elsewhere = elsewhere
        self._response: aiohttp.ClientResponse | None = None
        self._splitter = EventSplitter()
        self._first: list[bytes] = []
        self.replica: str | None = None
        self.body = b""

    async def begin(self) -> None:
        """Return when the answer is there: the first event of a stream, or all of another one.

        Raises AttemptFailedError.
        """
        try:
            response = self._response = await self._upstream.post(
                self._url,
                self._payload,
                headers(self._request_id, elsewhere=self._elsewhere),
            )
            self.replica = replica_of(response.headers)
            if response.status != 200:
                raise await self._refusal(response)
            if self._stream:
                await self._first_event(response)
            else:
                self.body = await self._whole(response)
        except AttemptFailedError:
            raise
        except aiohttp.ClientConnectorError as error:
            raise AttemptFailedError(_no_connection(), Again.LATER) from error
        except (aiohttp.ServerTimeoutError, TimeoutError) as error:
            timeout = upstream_timeout("The servers of this model accept no connection in time.")
            raise AttemptFailedError(timeout, Again.ELSEWHERE) from error
        except aiohttp.ClientError as error:
            log.warning("%s: upstream %s: %r", self._request_id, self._url, error)
            raise AttemptFailedError(self._broken(), Again.ELSEWHERE) from error

    async def events(self) -> AsyncIterator[list[bytes]]:
        """Yield the events of a stream as they come, several at once where they came so.

        Raises aiohttp.ClientError or EventTooLargeError if the line breaks.
        """
        if self._first:
            first, self._first = self._first, []
            yield first
        if self._response is None:
            return
        async for block in self._response.content.iter_any():
            events = self._splitter.feed(block)
            if events:
                yield events

    def close(self) -> None:
        """Let go; what is not read to its end is cancelled at the replica."""
        if self._response is not None:
            self._response.close()

    async def _first_event(self, response: aiohttp.ClientResponse) -> None:
        if not response.content_type.startswith("text/event-stream"):
            raise AttemptFailedError(self._broken(), Again.NO)
        try:
            async for block in response.content.iter_any():
                self._first += self._splitter.feed(block)
                said = next(filter(_says_something, self._first), None)
                if said is not None:
                    break
            else:
                raise AttemptFailedError(self._broken(), Again.ELSEWHERE)
        except EventTooLargeError as error:
            raise AttemptFailedError(self._broken(), Again.NO) from error
        if _is_failure(said):
            log.warning("%s: %s failed: %.500r", self._request_id, self.replica, said)
            raise AttemptFailedError(self._broken(), Again.ELSEWHERE)

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for block in response.content.iter_any():
            parts.append(block)
            size += len(block)
            if size > _LARGEST_ANSWER:
                message = "The answer is larger than 128 MiB. Ask for less, or for a stream."
                raise AttemptFailedError(upstream_failed(message), Again.NO)
        return b"".join(parts)

    async def _refusal(self, response: aiohttp.ClientResponse) -> AttemptFailedError:
        body = await response.content.read(_REFUSAL_BYTES)
        log.info(
            "%s: upstream %s answered %d: %.500r",
            self._request_id,
            self._url,
            response.status,
            b"(told to the client)" if response.status in TOLD else body,
        )
        refusal = read_refusal(
            response.status, body, response.headers.get("Retry-After"), self._model
        )
        return AttemptFailedError(refusal, again_after(response.status, response.headers))

    def _broken(self) -> ApiError:
        return upstream_failed(
            f"The server of '{self._model}' failed before it answered. Ask again."
        )


def _says_something(event: bytes) -> bool:
    return data_of(event) is not None


def _is_failure(event: bytes) -> bool:
    """Tell whether a stream begins with its end: an error, or [DONE] with nothing before it."""
    data = data_of(event)
    if data is None or not data.startswith(_FAILURES):
        return False
    try:
        return data == _DONE or json.loads(data).get("error") is not None
    except ValueError:
        return True


def _no_connection() -> ApiError:
    return unavailable(
        "The servers of this model cannot be reached. Try again in a moment; if it lasts, your "
        "operator finds the cause with 'holdfast audit'."
    )
