"""Where a request carries its token: each API's clients have their own place for it."""

from starlette.datastructures import Headers

from holdfast_gateway.api.endpoints import Shape, shape_of


def authorization_of(path: str, headers: Headers) -> str | None:
    """Return the Authorization of a request; Anthropic's clients may send `x-api-key` instead.

    Only on their API: elsewhere the header means nothing. Where both are there, Authorization is
    what counts, as in every other place that looks at a request.
    """
    authorization = headers.get("authorization")
    key = headers.get("x-api-key")
    if authorization is None and key and shape_of(path, headers) is Shape.ANTHROPIC:
        return f"Bearer {key}"
    return authorization
