"""Listings: `/api/models` with search, author, filter, sort, limit and pages."""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.endpoints import account_endpoint
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_hub_protocol.information import describe, sibling
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, Visit
    from holdfast_hub_protocol.metadata import Listed

PAGE: Final = 100
MAX_PAGE: Final = 1000
_NEWEST_BY: Final = {"lastModified": "updated_at", "createdAt": "created_at"}
# Nothing is counted here: every repository has as many, so the order is by name.
_UNCOUNTED: Final = frozenset({"downloads", "likes", "trendingScore", "likes7d"})

Mark = tuple[datetime | None, str]


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route of the listing."""
    listing = functools.partial(catalogue, kind=kind)
    return [Route(f"/api/{kind}s", account_endpoint(hub, "list", listing), methods=["GET"])]


def catalogue(visit: Visit, kind: str) -> Response:
    """Answer with the repositories that the caller may read."""
    query = visit.request.query_params
    limit = visit.count("limit", PAGE, MAX_PAGE)
    newest_by = _newest_by(query.get("sort"))
    if query.get("gated", "").lower() == "true":
        return JSONResponse([])
    tags = {tag for value in query.getlist("filter") for tag in value.split(",") if tag}
    tags |= {tag for tag in query.getlist("pipeline_tag") if tag}
    after = _mark(query["cursor"], kind) if query.get("cursor") else None

    found: list[Listed] = []
    while len(found) <= limit:
        page = visit.hub.metadata.repositories(
            kind,
            author=_text(query.get("author")),
            search=_text(query.get("search")),
            newest_by=newest_by,
            after=after,
            limit=limit + 1,
        )
        readable = {
            repository.key
            for repository in visit.hub.authorizer.readable(
                visit.caller, [listed.repository for listed in page]
            )
        }
        found += [
            listed for listed in page if listed.repository.key in readable and _has(listed, tags)
        ]
        if len(page) <= limit:
            break
        after = _after(page[-1], newest_by)
    headers = {}
    if len(found) > limit:
        del found[limit:]
        headers = visit.next_link(_encode_mark(_after(found[-1], newest_by)))
    visit.details["count"] = len(found)
    return JSONResponse([_item(visit, listed) for listed in found], headers=headers)


def _item(visit: Visit, listed: Listed) -> dict[str, Any]:
    query = visit.request.query_params
    document = describe(listed.repository, listed.commit)
    full = visit.flag("full")
    wanted = query.getlist("expand")
    if (full or "siblings" in wanted) and listed.commit:
        document["siblings"] = [
            sibling(entry, blobs=False) for entry in visit.hub.metadata.files(listed.commit)
        ]
    if wanted:
        return {key: document[key] for key in ("_id", "id", *wanted) if key in document}
    left_out = {"spaces", "safetensors"}
    left_out |= set() if full or visit.flag("cardData") else {"cardData"}
    left_out |= set() if full or visit.flag("config") else {"config"}
    return {key: value for key, value in document.items() if key not in left_out}


def _has(listed: Listed, tags: set[str]) -> bool:
    return not tags or (
        listed.commit is not None and tags.issubset(listed.commit.facts.get("tags", []))
    )


def _newest_by(sort: str | None) -> str | None:
    if sort is None or sort in _UNCOUNTED:
        return None
    if sort not in _NEWEST_BY:
        raise errors.bad_request(f"cannot sort by {sort!r}")
    return _NEWEST_BY[sort]


def _text(value: str | None) -> str | None:
    if value is not None and "\0" in value:
        raise errors.bad_request("NUL in the query")
    return value


def _after(listed: Listed, newest_by: str | None) -> Mark:
    repository = listed.repository
    date = repository.updated_at if newest_by == "updated_at" else repository.created_at
    return (date if newest_by else None, str(repository.id))


def _encode_mark(mark: Mark) -> str:
    return encode_cursor(json.dumps([mark[0].isoformat() if mark[0] else None, mark[1]]))


def _mark(cursor: str, kind: str) -> Mark:
    try:
        date, name = json.loads(decode_cursor(cursor))
        RepositoryId.parse(name, kind)
        return (datetime.fromisoformat(date) if date is not None else None, name)
    except (ValueError, TypeError, AttributeError, BadIdentifierError, RecursionError):
        raise errors.bad_request("malformed cursor") from None
