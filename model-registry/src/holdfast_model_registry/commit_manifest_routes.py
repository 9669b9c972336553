"""What this registry vouches for, over HTTP: `/api/holdfast/{kind}s/{id}/manifest/{revision}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.endpoints import repository_endpoint
from holdfast_model_registry.commit_manifest import read_envelope_text

if TYPE_CHECKING:
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit


def routes(hub: Hub) -> list[Route]:
    """Return the route of each kind."""
    return [
        Route(
            f"/api/holdfast/{kind}s/{{namespace}}/{{name}}/manifest/{{revision}}",
            repository_endpoint(hub, kind, "manifest", manifest),
        )
        for kind in hub.kinds
    ]


def manifest(visit: RepositoryVisit) -> Response:
    """Answer with the DSSE envelope that was made when the commit was published."""
    commit = visit.commit()
    with visit.hub.metadata.engine.connect() as connection:
        text = read_envelope_text(connection, visit.repository.key, commit.oid)
    if text is None:  # a registry signs what it misses when it starts
        raise errors.HubError(404, "This commit has no signed manifest", "EntryNotFound")
    return Response(
        text,
        media_type="application/vnd.dsse.envelope.v1+json",
        headers={"X-Repo-Commit": commit.oid},
    )
