"""Who there is: teams as organisations with their members, and users; told to who may know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.endpoints import account_endpoint
from holdfast_hub_protocol.errors import HubError
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.identifiers import BadIdentifierError
from holdfast_hub_protocol.information import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, Visit
    from holdfast_hub_protocol.records import Repository

PAGE: Final = 1000
_COUNTED: Final = {"model": "numModels", "dataset": "numDatasets", "space": "numSpaces"}


def routes(hub: Hub) -> list[Route]:
    """Return what is told of organisations and users."""
    organization, user = "/api/organizations/{name}", "/api/users/{name}"
    return [
        Route(f"{organization}/overview", account_endpoint(hub, "organization", overview)),
        Route(f"{organization}/members", account_endpoint(hub, "organization", members)),
        Route(f"{organization}/followers", account_endpoint(hub, "organization", followers)),
        Route(
            f"{organization}/settings/repositories",
            account_endpoint(hub, "storage", organization_storage),
        ),
        Route("/api/settings/repositories", account_endpoint(hub, "storage", own_storage)),
        Route(f"{user}/overview", account_endpoint(hub, "user", user_overview)),
        Route(f"{user}/followers", account_endpoint(hub, "user", user_follows)),
        Route(f"{user}/following", account_endpoint(hub, "user", user_follows)),
    ]


def overview(visit: Visit) -> Response:
    """Answer with a team that the caller is in or sees repositories of."""
    name, people, counts = _organization(visit)
    document: dict[str, Any] = {
        "type": "org",
        "name": name,
        "fullname": name,
        "avatarUrl": "",
        "isVerified": False,
        "isFollowing": False,
        "numFollowers": 0,
        **counts,
    }
    if name in visit.caller.teams:
        document["numUsers"] = len(people)
    return JSONResponse(document)


def members(visit: Visit) -> Response:
    """Answer with the members: all of them for who is one, none for who is not."""
    name, people, _ = _organization(visit)
    shown = people if name in visit.caller.teams else {}
    return JSONResponse([_person(person) | {"role": role} for person, role in shown.items()])


def followers(visit: Visit) -> Response:
    """Answer that nobody follows: what one follows is not kept here."""
    _organization(visit)
    return JSONResponse([])


def organization_storage(visit: Visit) -> Response:
    """Answer with what each repository of a team of the caller's stores."""
    name, _, _ = _organization(visit)
    if name not in visit.caller.teams:
        raise _not_found(name)
    return _storage(visit, name)


def own_storage(visit: Visit) -> Response:
    """Answer with what each repository under the caller's own name stores."""
    return _storage(visit, visit.caller.name)


def user_overview(visit: Visit) -> Response:
    """Answer with the caller, with who shares a team with them, or whose repositories they see."""
    name, shared, counts = _user(visit)
    return JSONResponse(
        {
            **_person(name),
            "isPro": False,
            "isFollowing": False,
            "numFollowers": 0,
            "numFollowing": 0,
            **counts,
            "orgs": [{"name": team, "fullname": team, "avatarUrl": ""} for team in shared],
        }
    )


def user_follows(visit: Visit) -> Response:
    """Answer that nobody follows and nobody is followed."""
    _user(visit)
    return JSONResponse([])


def _storage(visit: Visit, namespace: str) -> Response:
    """Answer with the repositories of a namespace that the caller sees, by age, page by page."""
    cursor = visit.request.query_params.get("cursor", "0")
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise errors.bad_request("malformed cursor")
    seen = [each for each in _seen(visit, namespace) if each.key > int(cursor)]
    page = seen[: visit.count("limit", PAGE, PAGE)]
    headers = visit.next_link(str(page[-1].key)) if len(page) < len(seen) else {}
    with visit.hub.metadata.engine.connect() as connection:
        rows = connection.execute(
            sa.select(holdings.c.repository_id, sa.func.sum(holdings.c.size).label("size"))
            .where(holdings.c.repository_id.in_([each.key for each in page]))
            .group_by(holdings.c.repository_id)
        )
        sizes = {row.repository_id: int(row.size) for row in rows}
    held = visit.hub.staging.usage(namespace).held
    return JSONResponse(
        [
            {
                "id": str(each.id),
                "type": each.id.kind,
                "updatedAt": timestamp(each.updated_at),
                "visibility": "private" if each.private else "public",
                "storage": sizes.get(each.key, 0),
                "storagePercent": round(100 * sizes.get(each.key, 0) / held, 2) if held else 0,
            }
            for each in page
        ],
        headers=headers,
    )


def _organization(visit: Visit) -> tuple[str, Mapping[str, str], dict[str, int]]:
    name = _name(visit)
    people = visit.hub.directory.members(name)
    counts = _counts(visit, name)
    if people is None or not (name in visit.caller.teams or any(counts.values())):
        raise _not_found(name)
    return name, people, counts


def _user(visit: Visit) -> tuple[str, list[str], dict[str, int]]:
    name = _name(visit)
    teams = visit.hub.directory.teams(name)
    counts = _counts(visit, name)
    shared = [team for team in teams or () if team in visit.caller.teams]
    known = name == visit.caller.name or shared or any(counts.values())
    if teams is None or not known:
        raise _not_found(name)
    return name, shared, counts


def _name(visit: Visit) -> str:
    try:
        name = visit.parameter("name")
    except BadIdentifierError:
        raise _not_found("this") from None
    visit.details["name"] = name[:100]
    return name


def _person(name: str) -> dict[str, Any]:
    return {"type": "user", "user": name, "fullname": name, "avatarUrl": ""}


def _counts(visit: Visit, namespace: str) -> dict[str, int]:
    """Return how many repositories of each kind the caller may see in a namespace."""
    counts = {_COUNTED[kind]: 0 for kind in visit.hub.kinds}
    for repository in _seen(visit, namespace):
        counts[_COUNTED[repository.id.kind]] += 1
    return counts


def _seen(visit: Visit, namespace: str) -> Sequence[Repository]:
    """Return the repositories of a namespace that the caller may see, oldest first."""
    table = schema.repositories
    statement = sa.select(table.c.id).where(
        table.c.namespace == namespace, table.c.kind.in_(visit.hub.kinds)
    )
    with visit.hub.metadata.engine.connect() as connection:
        keys = sorted(connection.execute(statement).scalars())
    seen: list[Repository] = []
    for first in range(0, len(keys), PAGE):  # SQLite's bound on variables is far above
        found = visit.hub.metadata.repositories_by_key(keys[first : first + PAGE])
        found.sort(key=lambda repository: repository.key)
        seen += visit.hub.authorizer.readable(visit.caller, found)
    return seen


def _not_found(name: str) -> HubError:
    return HubError(404, f"{name} does not exist")
