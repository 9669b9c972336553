"""Reading an upstream's refusal: what concerns the client, in our shape; the rest kept inside."""

import json
from collections.abc import Mapping

from holdfast_gateway.api.errors import (
    ApiError,
    invalid,
    unavailable,
    upstream_failed,
    upstream_timeout,
)
from holdfast_gateway.chain.balancer import NOT_REACHED

TOLD = frozenset({400, 409, 413, 415, 422})
"""What is wrong with the request: told to who made it, and to nobody else: it quotes from it."""


def read_refusal(status: int, body: bytes, retry_after: str | None, model: str) -> ApiError:
    """Return the error to raise for an upstream's answer that is not 200.

    vLLM's message about a bad request is for whoever wrote the request. What smg says about its
    workers is not: it names addresses.
    """
    message, code, param = _parts(body)
    if status in TOLD:
        return invalid(
            message or "The model's server refused the request.",
            code=code or "invalid_request",
            param=param,
        )
    if status in {404, 501}:
        return _not_there(status, message, code, model)
    if status == 429:
        headers = {"Retry-After": retry_after} if retry_after and retry_after.isdigit() else None
        return ApiError(
            429,
            f"The servers of '{model}' are fully occupied. Try again in a moment.",
            code="upstream_busy",
            kind="server_error",
            headers=headers or {"Retry-After": "1"},
        )
    if status == 503 or code in NOT_REACHED:
        return unavailable(f"No server of '{model}' is ready. Try again in a moment.")
    if status in {408, 504}:
        return upstream_timeout(f"The servers of '{model}' did not answer in time.")
    return upstream_failed(f"The servers of '{model}' failed (HTTP {status}).")


def _not_there(status: int, message: str, code: str, model: str) -> ApiError:
    about_model = "model" in code.lower() or "model" in message.lower()
    if status == 404 and about_model:
        # We offer it and its pool does not have it: it is being loaded, or all replicas are gone.
        return unavailable(
            f"No server of '{model}' is ready. Try again in a moment.", code="model_unavailable"
        )
    return invalid(
        f"The model '{model}' does not support this endpoint.",
        code="unsupported_endpoint",
        param="model",
    )


def _parts(body: bytes) -> tuple[str, str, str | None]:
    try:
        answer = json.loads(body)
    except ValueError:
        return "", "", None
    if not isinstance(answer, Mapping):
        return "", "", None
    error = answer.get("error", answer)
    if isinstance(error, str):
        return error, "", None
    if not isinstance(error, Mapping):
        return "", "", None
    message, code, param = error.get("message"), error.get("code"), error.get("param")
    return (
        message if isinstance(message, str) else "",
        code if isinstance(code, str) else "",
        param if isinstance(param, str) else None,
    )
