"""The addresses of large files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_endpoint, repository_route
from holdfast_hub_protocol.lfs import batch, files, parts, uploads
from holdfast_hub_protocol.lfs.addresses import identify

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes for repositories of a kind."""
    prefix = "" if kind == "model" else f"/{kind}s"
    git = f"{prefix}/{{namespace}}/{{name}}.git/info/lfs/objects"
    api = f"/api/{kind}s/{{namespace}}/{{name}}"
    upload = f"{api}/lfs-upload/{{token}}"

    def signed(path: str, handler: Callable[[Any], Response], method: str) -> Route:
        endpoint = repository_endpoint(
            hub, kind, "lfs-upload", handler, verb=Verb.CONTRIBUTE, identify=identify
        )
        return Route(path, endpoint, methods=[method])

    def of_repository(
        path: str, operation: str, handler: Callable[[Any], Response], verb: Verb = Verb.CONTRIBUTE
    ) -> Route:
        endpoint = repository_endpoint(hub, kind, operation, handler, verb=verb)
        return Route(path, endpoint, methods=["POST"])

    return [
        of_repository(f"{git}/batch", "lfs-batch", batch.batch),
        of_repository(f"{git}/verify", "lfs-verify", batch.verify),
        repository_route(hub, kind, "/lfs-files", "lfs-files", files.list_files),
        of_repository(f"{api}/lfs-files/batch", "lfs-delete", files.delete_files, Verb.ADMIN),
        of_repository(f"{api}/lfs-files/duplicate", "lfs-duplicate", files.duplicate, Verb.READ),
        signed(upload, uploads.put, "PUT"),
        signed(upload, parts.complete, "POST"),
        signed(f"{upload}/{{number:int}}", parts.put_part, "PUT"),
        signed(f"{upload}/{{number:int}}", parts.head_part, "HEAD"),
    ]
