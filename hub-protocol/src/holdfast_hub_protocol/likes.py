"""Likes: who likes a repository, and what somebody likes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import (
    account_endpoint,
    repository_endpoint,
    repository_route,
)
from holdfast_hub_protocol.identifiers import BadIdentifierError
from holdfast_hub_protocol.information import no_such, timestamp
from holdfast_hub_protocol.popularity import decode_moment, likes, trending
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit, Visit

PAGE: Final = 100
MAX_PAGE: Final = 1000


def routes(hub: Hub) -> list[Route]:
    """Return the route of what somebody likes."""
    endpoint = account_endpoint(hub, "likes", liked)
    return [Route("/api/users/{user}/likes", endpoint, methods=["GET"])]


def repository_routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of a repository's likes."""
    absent = repository_endpoint(hub, kind, "like", no_such, verb=Verb.DISCOVER)
    return [
        # Without a namespace it is well formed elsewhere, and here another route's shape.
        Route(f"/api/{kind}s/{{name}}/like", absent, methods=["POST", "DELETE"]),
        repository_route(hub, kind, "/like", "like", like, method="POST", verb=Verb.DISCOVER),
        repository_route(hub, kind, "/like", "like", unlike, method="DELETE", verb=Verb.DISCOVER),
        repository_route(hub, kind, "/likers", "likers", likers, verb=Verb.DISCOVER),
    ]


def like(visit: RepositoryVisit) -> Response:
    """Note that the caller likes a repository; again changes nothing."""
    key, name = visit.repository.key, visit.caller.name
    with visit.hub.metadata.engine.begin() as connection:
        _lock(connection, key)
        if not _likes(connection, key, name):
            connection.execute(
                likes.insert().values(repository_id=key, liker=name, created_at=datetime.now(UTC))
            )
            _count(connection, key)
            visit.announce()
    return JSONResponse({"liked": True})


def unlike(visit: RepositoryVisit) -> Response:
    """Take a like back; again changes nothing."""
    key, name = visit.repository.key, visit.caller.name
    with visit.hub.metadata.engine.begin() as connection:
        _lock(connection, key)
        mine = (likes.c.repository_id == key) & (likes.c.liker == name)
        if connection.execute(likes.delete().where(mine)).rowcount:
            _count(connection, key)
            visit.announce()
    return JSONResponse({"liked": False})


def likers(visit: RepositoryVisit) -> Response:
    """Answer with those who like a repository, by name."""
    limit = visit.count("limit", PAGE, MAX_PAGE)
    query = (
        sa.select(likes.c.liker, likes.c.created_at)
        .where(likes.c.repository_id == visit.repository.key)
        .order_by(likes.c.liker)
        .limit(limit + 1)
    )
    if cursor := visit.request.query_params.get("cursor"):
        query = query.where(likes.c.liker > decode_cursor(cursor))
    with visit.hub.metadata.engine.connect() as connection:
        found = connection.execute(query).all()
    headers = visit.next_link(encode_cursor(found[limit - 1].liker)) if len(found) > limit else {}
    people = [
        {"user": row.liker, "fullname": row.liker, "avatarUrl": "", "type": "user"}
        for row in found[:limit]
    ]
    return JSONResponse(people, headers=headers)


def liked(visit: Visit) -> Response:
    """Answer with what somebody likes, last first, as far as the caller may see it."""
    try:
        user = visit.parameter("user")
    except BadIdentifierError:
        raise errors.HubError(404, "User not found", "UserNotFound") from None
    limit = visit.count("limit", PAGE, MAX_PAGE)
    query = (
        sa.select(likes.c.repository_id, likes.c.created_at)
        .where(likes.c.liker == user)
        .order_by(likes.c.created_at.desc())
        .limit(limit + 1)
    )
    if cursor := visit.request.query_params.get("cursor"):
        query = query.where(likes.c.created_at < _moment(cursor))
    with visit.hub.metadata.engine.connect() as connection:
        found = connection.execute(query).all()
    headers: dict[str, str] = {}
    if len(found) > limit:
        found = found[:limit]
        headers = visit.next_link(encode_cursor(_utc(found[-1].created_at).isoformat()))
    repositories = visit.hub.metadata.repositories_by_key([row.repository_id for row in found])
    asked = [each for each in repositories if each.id.kind in visit.hub.kinds]
    seen = {each.key: each for each in visit.hub.authorizer.readable(visit.caller, asked)}
    document: list[dict[str, Any]] = [
        {
            "createdAt": timestamp(_utc(row.created_at)),
            "repo": {"name": str(repository.id), "type": repository.id.kind},
        }
        for row in found
        if (repository := seen.get(row.repository_id)) is not None
    ]
    return JSONResponse(document, headers=headers)


def _likes(connection: sa.Connection, key: int, name: str) -> bool:
    mine = (likes.c.repository_id == key) & (likes.c.liker == name)
    return connection.execute(sa.select(likes.c.liker).where(mine)).first() is not None


def _lock(connection: sa.Connection, key: int) -> None:
    # A write first: SQLite gives its lock at the first one, PostgreSQL this row's.
    table = schema.repositories
    connection.execute(table.update().where(table.c.id == key).values(likes=table.c.likes))


def _count(connection: sa.Connection, key: int) -> None:
    table = schema.repositories
    total = sa.select(sa.func.count()).where(likes.c.repository_id == key).scalar_subquery()
    connection.execute(
        table.update().where(table.c.id == key).values(likes=total, trending_score=trending())
    )


def _moment(cursor: str) -> datetime:
    try:
        return decode_moment(decode_cursor(cursor))
    except ValueError:
        raise errors.bad_request("malformed cursor") from None


def _utc(moment: datetime) -> datetime:
    # SQLite keeps no offset; everything is written in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
