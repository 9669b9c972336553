"""The properties that `expand` may name, and those that only it brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast_hub_protocol import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.datastructures import QueryParams

    from holdfast_hub_protocol.records import Repository

_BOTH: Final = (
    *("author", "cardData", "createdAt", "disabled", "downloads", "downloadsAllTime", "gated"),
    *("lastModified", "likes", "private", "resourceGroup", "sha", "siblings", "tags"),
    *("trendingScore", "usedStorage"),
)
PROPERTIES: Final[Mapping[str, Sequence[str]]] = {
    "model": (
        *_BOTH,
        *("baseModels", "childrenModelCount", "config", "evalResults", "gguf", "inference"),
        *("inferenceProviderMapping", "library_name", "mask_token", "model-index"),
        *("pipeline_tag", "safetensors", "spaces", "transformersInfo", "widgetData"),
    ),
    "dataset": (*_BOTH, "citation", "description", "mainSize", "paperswithcode_id"),
}


def wanted(query: QueryParams, kind: str) -> list[str]:
    """Return the properties asked for; HubError 400 for one that there is not."""
    found = [
        name
        for key in ("expand", "expand[]")
        for value in query.getlist(key)
        for name in value.split(",")
    ]
    known = PROPERTIES.get(kind, _BOTH)
    for name in found:
        if name not in known:
            raise errors.bad_request(f'"expand" must be one of [{", ".join(sorted(known))}]')
    return found


def of_counts(repository: Repository) -> dict[str, int]:
    """Return the properties that are counted."""
    return {
        "downloadsAllTime": repository.downloads_all_time,
        "trendingScore": repository.trending_score,
    }


def of_card(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that are parts of the card or the tokenizer."""
    card, config = facts.get("cardData"), facts.get("config")
    found: dict[str, Any] = {}
    if isinstance(card, dict):
        found |= {"model-index": card.get("model-index"), "widgetData": card.get("widget")}
    if isinstance(config, dict) and isinstance(tokenizer := config.get("tokenizer_config"), dict):
        found["mask_token"] = tokenizer.get("mask_token")
    return {key: value for key, value in found.items() if value is not None}
