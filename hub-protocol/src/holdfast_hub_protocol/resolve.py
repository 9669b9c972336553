"""Files: `/{id}/resolve/{revision}/{path}`, the headers by which clients know a file."""

from __future__ import annotations

import mimetypes
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.endpoints import repository_endpoint
from holdfast_hub_protocol.information import no_such
from holdfast_hub_protocol.xet.reading import read_headers

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit, Entry

# Files are other people's; a browser must not run them under the hub's own origin.
_INERT: Final = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of files."""
    prefix, rest = "" if kind == "model" else f"/{kind}s", "/resolve/{revision}/{path:path}"
    absent = repository_endpoint(hub, kind, "resolve", no_such, verb=Verb.DISCOVER)
    return [
        Route(
            f"{prefix}/{{namespace}}/{{name}}{rest}",
            repository_endpoint(hub, kind, "resolve", resolve),
            methods=["GET"],
        ),
        # Names without a namespace: well formed elsewhere, absent here.
        Route(f"{prefix}/{{name}}{rest}", absent, methods=["GET"]),
        *(
            Route(f"/api/{kind}s/{{name}}/{what}/{{rest:path}}", absent, methods=["GET", "POST"])
            for what in ("tree", "paths-info", "commits", "preupload", "commit")
        ),
    ]


def resolve(visit: RepositoryVisit) -> Response:
    """Answer GET and HEAD of one file of one revision."""
    commit = visit.commit()
    visit.check_fetch(commit)
    entry = visit.entry(commit)
    if entry.sha256 is None:
        raise errors.entry_not_found(entry.path, commit.oid)
    visit.details["sha256"] = entry.sha256
    visit.details["size"] = entry.size
    if wanted := visit.request.headers.get("range"):
        visit.details["range"] = wanted[:100]
    if visit.request.method == "GET":
        # What is known of the file is right without it, and lets clients use a copy they have.
        if not visit.hub.blobs.has(entry.sha256, entry.size):
            raise errors.damaged()
        visit.hub.downloads.note(visit.caller, visit.repository, commit, entry)
    headers = file_headers(commit, entry) | read_headers(visit, commit, entry)
    return visit.hub.sender.send(visit.request, entry.sha256, entry.size, headers)


def file_headers(commit: Commit, entry: Entry) -> dict[str, str]:
    """Return the headers of a file, without length and range."""
    name = entry.path.rpartition("/")[2]
    headers = {
        **_INERT,
        "X-Repo-Commit": commit.oid,
        "ETag": f'"{entry.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": _media_type(entry),
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
    }
    if entry.is_lfs:
        headers["X-Linked-ETag"] = f'"{entry.etag}"'
        headers["X-Linked-Size"] = str(entry.size)
    return headers


def _media_type(entry: Entry) -> str:
    if entry.is_lfs:
        return "application/octet-stream"
    kind, encoding = mimetypes.guess_type(entry.path)
    if kind == "application/json" and encoding is None:
        return kind
    return "text/plain; charset=utf-8"
