"""Opening a repository to teams, and labelling it anew: by its admins over HTTP, by operators here.

GET /api/holdfast/{models|datasets}/{namespace}/{name}/access
PUT the same, {"teams": [...]?, "classification": ...?}
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_endpoint
from holdfast_model_registry import lineage
from holdfast_model_registry.lineage_labels import at_most, known_classification
from holdfast_model_registry.readers import NOBODY, put_access, read_access

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Repository
    from holdfast_model_registry.readers import Access

MAX_TEAMS: Final = 100


def open_to(
    connection: sa.Connection,
    repository_key: int,
    *,
    teams: Sequence[str] | None,
    labels: Mapping[str, str],
) -> tuple[Access, bool]:
    """Set readers (None: as they are) and labels; whatever was made of it inherits them."""
    held, changed = put_access(connection, repository_key, teams=teams, labels=labels)
    if changed:
        lineage.inherit(connection, repository_key)
    return held, changed


def describe(repository: Repository, access: Access) -> dict[str, Any]:
    """Return who reads a repository, and its labels with those that it inherits."""
    return {
        "id": str(repository.id),
        "kind": repository.id.kind,
        "owner": repository.id.namespace,
        "private": repository.private,
        "gated": repository.gated or False,
        "teams": list(access.teams),
        "labels": dict(access.labels),
    }


def routes(hub: Hub) -> list[Route]:
    """Return the routes, for admins of the repository."""
    found = []
    for kind in hub.kinds:
        endpoint = functools.partial(repository_endpoint, hub, kind, "access", verb=Verb.ADMIN)
        path = f"/api/holdfast/{kind}s/{{namespace}}/{{name}}/access"
        found += [
            Route(path, endpoint(_show), methods=["GET"]),
            Route(path, endpoint(_change), methods=["PUT"]),
        ]
    return found


def _show(visit: RepositoryVisit) -> Response:
    return JSONResponse(describe(visit.repository, _held(visit)))


def _change(visit: RepositoryVisit) -> Response:
    """Open to other teams, or label stricter; only operators label less strict."""
    document = visit.json()
    if unknown := sorted(document.keys() - {"teams", "classification"}):
        raise errors.bad_request(f"unknown keys: {', '.join(unknown)[:200]}")
    teams = _teams(visit, document["teams"]) if "teams" in document else None
    labels = _labels(visit, document["classification"]) if "classification" in document else {}
    with visit.hub.metadata.engine.begin() as connection:
        held, changed = open_to(connection, visit.repository.key, teams=teams, labels=labels)
        visit.details["teams"] = ",".join(held.teams)
        visit.details["classification"] = held.labels.get("classification", "")
        if changed:
            visit.announce()
    return JSONResponse(describe(visit.repository, _held(visit)))


def _teams(visit: RepositoryVisit, asked: object) -> list[str]:
    if not isinstance(asked, list) or not all(isinstance(team, str) for team in asked):
        raise errors.bad_request('"teams" must be a list of names')
    if len(asked) > MAX_TEAMS:
        raise errors.bad_request(f"at most {MAX_TEAMS} teams")
    for team in asked:
        if "\0" in team or visit.hub.directory.members(team) is None:
            raise errors.bad_request(f"there is no team {team[:100]!r}")
    return asked


def _labels(visit: RepositoryVisit, asked: object) -> dict[str, str]:
    if not isinstance(asked, str) or not known_classification(asked):
        raise errors.bad_request('"classification" must be one that the profiles know')
    now = _held(visit).labels.get("classification", "")
    if not at_most(now, asked):
        raise errors.forbidden(
            f"{visit.repository.id} is {now or 'not labelled'}: only operators label it {asked}"
        )
    return {"classification": asked}


def _held(visit: RepositoryVisit) -> Access:
    key = visit.repository.key
    return read_access(visit.hub.metadata.engine, [key]).get(key, NOBODY)
