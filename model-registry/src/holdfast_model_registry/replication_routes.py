"""What replicas ask for: `/api/holdfast/replication/repositories` and `…/{id}/state`.

Manifests and files they get where everybody does. Any caller may ask for the state of what they may
read; it says nothing that they could not see otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.endpoints import account_endpoint, repository_endpoint
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor
from holdfast_model_registry.replication_documents import sign_state, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit, Visit
    from holdfast_model_registry.signing_key import RegistryKey

PAGE: Final = 500


def routes(key: RegistryKey) -> Callable[[Hub], list[Route]]:
    """Return what makes the routes of a hub."""

    def state(visit: RepositoryVisit) -> Response:
        with visit.hub.metadata.engine.connect() as connection:
            text = sign_state(state_of(connection, visit.repository), key)
        return Response(text, media_type="application/vnd.dsse.envelope.v1+json")

    def made(hub: Hub) -> list[Route]:
        listing = account_endpoint(hub, "replicate", repositories)
        return [
            Route("/api/holdfast/replication/repositories", listing),
            *(
                Route(
                    f"/api/holdfast/{kind}s/{{namespace}}/{{name}}/state",
                    repository_endpoint(hub, kind, "state", state),
                )
                for kind in hub.kinds
            ),
        ]

    return made


def repositories(visit: Visit) -> Response:
    """Answer with every repository that the caller may read, in pages."""
    cursor = visit.request.query_params.get("cursor")
    after = decode_cursor(cursor) if cursor else "0"
    if not (after.isascii() and after.isdigit() and len(after) < 16):
        raise errors.bad_request("malformed cursor")
    table = schema.repositories
    with visit.hub.metadata.engine.connect() as connection:
        keys = list(
            connection.execute(
                sa.select(table.c.id)
                .where(table.c.id > int(after), table.c.kind.in_(visit.hub.kinds))
                .order_by(table.c.id)
                .limit(PAGE)
            ).scalars()
        )
    found = visit.hub.metadata.repositories_by_key(keys)
    readable = visit.hub.authorizer.readable(visit.caller, found)
    visit.details["count"] = len(readable)
    headers = visit.next_link(encode_cursor(str(keys[-1]))) if len(keys) == PAGE else {}
    return JSONResponse(
        [{"kind": each.id.kind, "id": str(each.id)} for each in readable], headers=headers
    )
