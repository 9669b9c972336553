"""Cards before they are committed: `/api/validate-yaml`, which the client asks of every README."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.endpoints import open_endpoint
from holdfast_hub_protocol.facts import load_metadata, metadata_block

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_hub_protocol.bodies import Body
    from holdfast_hub_protocol.endpoints import Hub

MAX_BLOCK: Final = 128 << 10  # characters of YAML that are checked for anybody who asks
_TEXTS: Final = ("license", "license_name", "license_link", "pipeline_tag", "library_name")
_TEXTS_OR_LISTS: Final = ("language", "tags", "datasets", "metrics", "base_model")
_LISTS: Final = ("model-index", "widget")


def routes(_: Hub) -> list[Route]:
    """Return the route; one client asks without its token, so nobody needs one."""
    return [Route("/api/validate-yaml", open_endpoint(validate), methods=["POST"])]


def validate(request: Request, body: Body) -> Response:
    """Answer with what is wrong (400) or doubtful with the metadata of a card."""
    try:
        document = json.loads(body.whole())
        content = document["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise errors.bad_request("expected a JSON object with the content of a card")
    wrong, doubtful = check_card(content)
    status = 400 if wrong else 200
    if request.headers.get("accept") == "text/plain":
        lines = [f"- Error: {text}" for text in wrong] + [f"- Warning: {text}" for text in doubtful]
        return PlainTextResponse("\n".join(lines), status)
    answer: dict[str, Any] = {
        "errors": [{"message": text} for text in wrong],
        "warnings": [{"message": text} for text in doubtful],
    }
    if wrong:
        answer["error"] = f"Invalid metadata in README.md: {'; '.join(wrong)}"
    return JSONResponse(answer, status)


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Return what is wrong and what is doubtful with a card's metadata, in words."""
    block = metadata_block(content)
    if block is None or not block.strip():
        return [], ["empty or missing yaml metadata in repo card"]
    if len(block) > MAX_BLOCK:
        return [], [f"metadata of more than {MAX_BLOCK} characters are not checked"]
    try:
        data = load_metadata(block)
    except ValueError as error:
        return [f"bad yaml metadata in repo card: {error}"], []
    if data is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["the yaml metadata in repo card must be a mapping"], []
    return _mistakes(data), []


def _mistakes(data: dict[str, Any]) -> list[str]:
    found = []
    for key in _TEXTS:
        allowed = (str, list) if key == "license" else str
        if data.get(key) is not None and not isinstance(data[key], allowed):
            found.append(f'"{key}" must be a string')
    for key in _TEXTS_OR_LISTS:
        value = data.get(key)
        items = value if isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in items):
            found.append(f'"{key}" must be a string or a list of strings')
    found += [
        f'"{key}" must be an array'
        for key in _LISTS
        if data.get(key) is not None and not isinstance(data[key], list)
    ]
    return found
