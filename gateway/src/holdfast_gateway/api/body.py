"""Reading a request's body from somebody who may be slow, endless or gone."""

import asyncio

from starlette.requests import Request

from holdfast_gateway.api.errors import ApiError, invalid
from holdfast_gateway.config import Limits


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the whole body, or raise before more than the limit is held in memory."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise invalid("Send the body without Content-Encoding.", code="unsupported_encoding")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    # Gone, or its chunks make no sense: without an answer that would be a 500.
                    raise invalid("The body does not come to an end.", code="incomplete_body")
                body += message.get("body", b"")
                if len(body) > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise ApiError(
            408,
            f"The body did not arrive within {limits.body_seconds:g} seconds.",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from error


def _too_large(limit: int) -> ApiError:
    return invalid(
        f"The body is larger than the {limit} bytes allowed here.", code="request_too_large"
    )
