"""The caller: `/api/whoami-v2`, and whether they may read a repository: `/auth-check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import account_endpoint, repository_route

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit, Visit


def routes(hub: Hub) -> list[Route]:
    """Return what concerns the caller."""
    return [Route("/api/whoami-v2", account_endpoint(hub, "whoami", whoami))]


def repository_routes(hub: Hub, kind: str) -> list[Route]:
    """Return what concerns the caller's rights in a repository."""
    return [
        repository_route(hub, kind, "/auth-check", "auth-check", auth_check),
        repository_route(
            hub, kind, "/auth-check/write", "auth-check", auth_check_write, verb=Verb.WRITE
        ),
    ]


def whoami(visit: Visit) -> Response:
    """Answer with who the token stands for; teams are organisations."""
    caller = visit.caller
    return JSONResponse(
        {
            "type": "user",
            "id": caller.name,
            "name": caller.name,
            "fullname": caller.name,
            "kind": caller.kind,
            "isPro": False,
            "orgs": [
                {"type": "org", "id": team, "name": team, "fullname": team, "roleInOrg": "read"}
                for team in caller.teams
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": caller.token_id, "role": "read"},
            },
        }
    )


def auth_check(visit: RepositoryVisit) -> Response:
    """Answer 200: who came this far may read."""
    return JSONResponse({"id": str(visit.repository.id), "access": "read"})


def auth_check_write(visit: RepositoryVisit) -> Response:
    """Answer 200: who came this far may write."""
    return JSONResponse({"id": str(visit.repository.id), "access": "write"})
