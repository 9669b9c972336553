"""Where a revision comes from, over HTTP: `…/provenance/{revision}` and `…/mlbom/{revision}`.

Below `/api/holdfast/{kind}s/{id}`. Content is not measured for a request: `model verify` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_endpoint
from holdfast_model_registry import mlbom

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_model_registry.verification import Verifier


def routes(verifier: Verifier) -> Callable[[Hub], list[Route]]:
    """Return what makes the routes of a hub."""

    def provenance(visit: RepositoryVisit) -> Response:
        commit = visit.commit()
        chain = verifier.verify(
            visit.repository, commit, measure=False, visible=lambda key: _visible(visit, key)
        )
        return JSONResponse(chain.as_json(), headers={"X-Repo-Commit": commit.oid})

    def bill(visit: RepositoryVisit) -> Response:
        commit = visit.commit()
        chain = verifier.verify(
            visit.repository, commit, measure=False, visible=lambda key: _visible(visit, key)
        )
        document = mlbom.render(chain, commit, visit.hub.metadata.files(commit))
        return JSONResponse(
            document,
            media_type="application/vnd.cyclonedx+json; version=1.6",
            headers={"X-Repo-Commit": commit.oid},
        )

    def made(hub: Hub) -> list[Route]:
        base = "/api/holdfast/{kind}s/{{namespace}}/{{name}}/{what}/{{revision}}"
        return [
            Route(base.format(kind=kind, what=what), repository_endpoint(hub, kind, what, handler))
            for kind in hub.kinds
            for what, handler in (("provenance", provenance), ("mlbom", bill))
        ]

    return made


def _visible(visit: RepositoryVisit, repository_key: int) -> bool:
    found = visit.hub.metadata.repositories_by_key([repository_key])
    return any(
        visit.hub.authorizer.may(visit.caller, Verb.DISCOVER, each.id, each).allowed
        for each in found
    )
