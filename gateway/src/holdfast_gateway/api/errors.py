"""Every refusal a client can see, in the shape that the API it speaks gives errors."""

import json

from holdfast_gateway.api.endpoints import Shape

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An answer that is not the one asked for: status, message, and a code programs can match."""

    def __init__(  # noqa: PLR0913  # the fields of OpenAI's error object, all by name
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = INVALID_REQUEST,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = headers or {}

    def body(self, shape: Shape = Shape.OPENAI, request_id: str = "") -> bytes:
        """Return the JSON body."""
        if shape is Shape.ANTHROPIC:
            return json.dumps(self._anthropic(request_id)).encode()
        return json.dumps({"error": self._openai()}).encode()

    def event(self, shape: Shape = Shape.OPENAI, request_id: str = "") -> bytes:
        """Return the same error as a server-sent event, for a stream that has already begun."""
        if shape is Shape.OPENAI:
            return b"data: " + self.body() + b"\n\n"
        if shape is Shape.ANTHROPIC:
            event = self._anthropic(request_id)
        else:
            # Documented flat, sent nested by OpenAI; only the nested one makes its client raise.
            error = self._openai()
            event = {**error, "type": "error", "error": error}
        return b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"

    def _openai(self) -> dict[str, object]:
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }

    def _anthropic(self, request_id: str) -> dict[str, object]:
        kind = _ANTHROPIC_TYPES.get(self.status) or (
            "api_error" if self.status >= 500 else "invalid_request_error"
        )
        error = {"type": kind, "message": self.message}
        return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str, *, code: str = "invalid_request", param: str | None = None) -> ApiError:
    """Return a 400: the client's request is wrong and repeating it will not help."""
    return ApiError(400, message, code=code, param=param)


def invalid_api_key() -> ApiError:
    """Return a 401 that does not repeat the token, so that it reaches no log on the way back."""
    return ApiError(
        401,
        "No valid API key was given. Send 'Authorization: Bearer <token>', or 'x-api-key: <token>' "
        "with Anthropic's API, with a token of this site; ask your operator for one with "
        "'holdfast token issue'.",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def model_not_found(model: str) -> ApiError:
    """Return a 404, the same for a model that is not there and one that may not be used."""
    return ApiError(
        404,
        f"The model '{model}' does not exist or you do not have access to it.",
        code="model_not_found",
        param="model",
    )


def unknown_url(method: str, path: str) -> ApiError:
    """Return a 404 for everything outside the list of allowed routes."""
    return ApiError(404, f"Unknown request URL: {method} {path}.", code="unknown_url")


def unavailable(message: str, *, code: str = "upstream_unavailable") -> ApiError:
    """Return a 503: nothing was generated, and trying again later can succeed."""
    return ApiError(503, message, code=code, kind=SERVER_ERROR, headers={"Retry-After": "5"})


def upstream_failed(message: str) -> ApiError:
    """Return a 502: the serving side answered with something that is no answer."""
    return ApiError(502, message, code="upstream_error", kind=SERVER_ERROR)


def upstream_timeout(message: str) -> ApiError:
    """Return a 504: the serving side did not answer in time."""
    return ApiError(504, message, code="upstream_timeout", kind=SERVER_ERROR)


def interrupted(message: str) -> ApiError:
    """Return the error of a stream that broke after its first byte was sent."""
    return ApiError(502, message, code="stream_interrupted", kind=SERVER_ERROR)
