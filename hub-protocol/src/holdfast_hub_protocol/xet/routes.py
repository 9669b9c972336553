"""The addresses of the content-addressed storage, below each repository's own.

Clients put `/v1/xorbs/…` and the like behind the address that the token came with, path and all.
What is not here is 404, which they take for an answer: `xorb-grants` (then they upload
directly), `/v1/chunks` (which would tell what other people have), `/v1/telemetry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_endpoint, repository_route
from holdfast_hub_protocol.xet import reading, tokens, writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of tokens, uploads and reads."""
    base = f"/api/{kind}s/{{namespace}}/{{name}}/xet"

    def upload(path: str, operation: str, handler: Callable[[RepositoryVisit], Response]) -> Route:
        endpoint = repository_endpoint(
            hub, kind, operation, handler, verb=Verb.CONTRIBUTE, identify=tokens.writer
        )
        return Route(f"{base}/{{epoch}}{path}", endpoint, methods=["POST"])

    def read(
        path: str,
        operation: str,
        handler: Callable[[RepositoryVisit], Response],
        identify: Callable[[Hub, Request], Caller],
    ) -> Route:
        endpoint = repository_endpoint(
            hub, kind, operation, handler, verb=Verb.READ, identify=identify
        )
        return Route(f"{base}{path}", endpoint, methods=["GET"])

    files, file = "/files", "reconstructions/{file}"
    return [
        repository_route(
            hub,
            kind,
            "/xet-write-token/{revision}",
            "xet-write-token",
            tokens.write_token,
            verb=Verb.CONTRIBUTE,
        ),
        repository_route(
            hub, kind, "/xet-read-token/{revision}", "xet-read-token", tokens.read_token
        ),
        upload("/v1/xorbs/default/{hash}", "xet-xorb", writing.upload_xorb),
        upload("/v1/shards", "xet-shard", writing.upload_shard),
        upload("/v2/shards", "xet-shard", writing.upload_shard_with_progress),
        read(f"{files}/v1/{file}", "xet-file", reading.reconstruction, tokens.reader),
        read(f"{files}/v2/{file}", "xet-file", reading.reconstruction_2, tokens.reader),
        read("/xorbs/{ticket}/{index}", "xet-read", reading.read_xorb, tokens.ticket_holder),
    ]
