"""The caller: `/api/whoami-v2`, and whether they may read or write a repository: `/auth-check`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import account_endpoint, repository_route
from holdfast_hub_protocol.information import timestamp

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.directory import TokenDescription
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit, Visit

# What a verb is called among the hub's permissions; each has those of the verbs before it.
_PERMISSIONS: Final = {
    "read": ("repo.content.read",),
    "contribute": ("discussion.write",),
    "write": ("repo.write",),
    "admin": ("repo.access.read", "repo.access.write"),
}
_INFER: Final = "inference.serverless.write"


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
    """Answer with who the token stands for and what it is bound to; teams are organisations."""
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
                {
                    "type": "org",
                    "id": team,
                    "name": team,
                    "fullname": team,
                    "roleInOrg": caller.roles.get(team, "read"),
                }
                for team in caller.teams
            ],
            "auth": {
                "type": "access_token",
                "accessToken": _token(caller, visit.hub.directory.token(caller)),
            },
        }
    )


def auth_check(visit: RepositoryVisit) -> Response:
    """Answer 200: who came this far may read."""
    return JSONResponse({"id": str(visit.repository.id), "access": "read"})


def auth_check_write(visit: RepositoryVisit) -> Response:
    """Answer 200: who came this far may write."""
    return JSONResponse({"id": str(visit.repository.id), "access": "write"})


def _token(caller: Caller, token: TokenDescription) -> dict[str, Any]:
    """Return a token as clients show it: `read` and `write` where that says all about it."""
    created = datetime.fromtimestamp(token.created_at, UTC)
    document: dict[str, Any] = {"displayName": token.name, "createdAt": timestamp(created)}
    simple = {None: "write", ("read",): "read", ("read", "infer"): "read"}
    verbs = None if token.verbs is None else tuple(token.verbs)
    if token.teams is None and token.repositories is None and verbs in simple:
        return document | {"role": simple[verbs]}
    permissions = _permissions(verbs)
    scoped = [{"entity": entity, "permissions": permissions} for entity in _entities(caller, token)]
    fine = {"canReadGatedRepos": "repo.content.read" in permissions, "global": [], "scoped": scoped}
    return document | {"role": "fineGrained", "fineGrained": fine}


def _permissions(verbs: tuple[str, ...] | None) -> list[str]:
    order = list(_PERMISSIONS)
    highest = max((order.index(verb) + 1 for verb in verbs or order if verb in order), default=0)
    found = [name for verb in order[:highest] for name in _PERMISSIONS[verb]]
    return [*found, _INFER] if verbs is None or "infer" in verbs else found


def _entities(caller: Caller, token: TokenDescription) -> list[dict[str, str]]:
    if token.repositories is not None:
        return [
            {"type": "org", "name": name.removesuffix("/*")}
            if name.endswith("/*")
            else {"type": "model", "name": name}
            for name in token.repositories
        ]
    names = token.teams if token.teams is not None else (caller.name, *caller.teams)
    return [{"type": "user" if name == caller.name else "org", "name": name} for name in names]
