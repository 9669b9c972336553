"""The caller: `/api/whoami-v2`, and whether they may read a repository: `/auth-check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from holdfast_hub_protocol.errors import HubError

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit, Visit


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
    """Answer 403: nothing is written over this protocol yet."""
    raise HubError(403, f"{visit.repository.id} cannot be written to through this endpoint")
