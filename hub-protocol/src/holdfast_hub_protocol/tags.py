"""The tags of a repository: what its card and files say about it, as clients filter by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub

MAX_TAGS: Final = 500  # of one repository; a card is other people's text
MAX_TAG_LENGTH: Final = 200
# What a data set's card says under a key is tagged `key:value`.
_DATASET_KEYS: Final = (
    *("task_categories", "task_ids", "language", "language_creators", "annotations_creators"),
    *("multilinguality", "size_categories", "source_datasets", "license"),
)
_TYPES: Final = {
    "models": (
        *("pipeline_tag", "library", "dataset", "language", "license"),
        *("arxiv", "doi", "region", "other"),
    ),
    "datasets": (
        *("task_categories", "size_categories", "modality", "format", "library", "language"),
        *("license", "arxiv", "doi", "region", "other", "task_ids", "benchmark"),
    ),
}


def routes(_: Hub) -> list[Route]:
    """Return the routes of the tags that there are."""
    return [Route(f"/api/{kind}-tags-by-type", _by_type, methods=["GET"]) for kind in _TYPES]


async def _by_type(request: Request) -> Response:
    """Answer with the kinds of tags, and none of them.

    Clients ask without a token, and what is in a registry is nobody's business without one.
    """
    kind = request.url.path.removeprefix("/api/").removesuffix("-tags-by-type")
    return JSONResponse({name: [] for name in _TYPES[kind]})


def tags_of(kind: str, facts: Mapping[str, Any]) -> list[str]:
    """Return the tags of a repository with these facts."""
    if kind != "dataset":
        found = [tag for tag in facts.get("tags", []) if isinstance(tag, str)]
    else:
        card = facts.get("cardData") or {}
        found = [f"{key}:{value}" for key in _DATASET_KEYS for value in _listed(card, key)]
        found += _listed(card, "tags")
    short = (tag for tag in found if 0 < len(tag) <= MAX_TAG_LENGTH)
    return list(dict.fromkeys(short))[:MAX_TAGS]


def _listed(card: Mapping[str, Any], key: str) -> list[str]:
    value = card.get(key)
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]
