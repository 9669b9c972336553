"""Branches, tags and history: `/refs` and `/commits/{revision}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.information import timestamp
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit

PAGE: Final = 50
_GROUPS: Final = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/convert/": "converts"}
_PULL_REQUESTS: Final = {"refs/pr/": "pullRequests"}


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of references and history."""
    return [
        repository_route(hub, kind, "/refs", "refs", refs, verb=Verb.DISCOVER),
        repository_route(hub, kind, "/commits/{revision}", "commits", commits, verb=Verb.DISCOVER),
    ]


def refs(visit: RepositoryVisit) -> Response:
    """Answer with the branches and tags; pull requests are asked for by `include_prs`."""
    groups = _GROUPS | (_PULL_REQUESTS if visit.flag("include_prs") else {})
    document: dict[str, list[dict[str, str]]] = {group: [] for group in groups.values()}
    for ref in visit.hub.metadata.refs(visit.repository):
        for prefix, group in groups.items():
            if ref.name.startswith(prefix):
                document[group].append(
                    {
                        "name": ref.name.removeprefix(prefix),
                        "ref": ref.name,
                        "targetCommit": ref.commit,
                    }
                )
    return JSONResponse(document)


def commits(visit: RepositoryVisit) -> Response:
    """Answer with the history of a revision, newest first, as far as it is known here."""
    start = visit.commit()
    limit = visit.count("limit", PAGE, 1000)
    cursor = visit.request.query_params.get("cursor")
    if cursor:
        start = visit.commit_of(decode_cursor(cursor))
    found = visit.hub.metadata.history(visit.repository, start, limit + 1)
    headers = {"X-Repo-Commit": start.oid}
    if len(found) > limit:
        headers |= visit.next_link(encode_cursor(found.pop().oid))
    expanded = "formatted" in visit.request.query_params.getlist("expand[]")
    document: list[dict[str, Any]] = []
    for commit in found:
        item: dict[str, Any] = {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": timestamp(commit.date),
            "authors": [{"user": commit.author}],
        }
        if expanded:
            item["formatted"] = {"title": commit.title, "message": commit.message}
        document.append(item)
    return JSONResponse(document, headers=headers)
