"""Before an upload: which files go to LFS, which are left out, which are there already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.attributes import attributes_of, default_attributes
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.gitignore import MAX_SIZE, Ignored, LargeFiles
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_path
from holdfast_hub_protocol.pushing import check_push

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit

MAX_FILES: Final = 1000
LARGEST_REGULAR_FILE: Final = 10 << 20  # bytes; clients send such files inside the commit


@dataclass(frozen=True)
class _Upload:
    path: str
    size: int


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route that clients ask before they upload."""
    return [
        repository_route(
            hub,
            kind,
            "/preupload/{revision}",
            "preupload",
            preupload,
            method="POST",
            verb=Verb.CONTRIBUTE,
        )
    ]


def preupload(visit: RepositoryVisit) -> Response:
    """Answer for each file how to send it, whether to, and what the branch has in its place."""
    ref = check_push(visit)
    commit = visit.hub.metadata.head(visit.repository, ref)
    if commit is None:
        raise errors.revision_not_found(visit.parameter("revision"))
    body = visit.json()
    uploads = _uploads(body)
    attributes = attributes_of(visit.hub.metadata, visit.hub.blobs, commit)
    large = LargeFiles(default_attributes() if attributes is None else attributes)
    ignored = Ignored(_ignore_file(visit, commit, body.get("gitIgnore")))
    before = {
        entry.path: entry
        for entry in visit.hub.metadata.entries_at(commit, [upload.path for upload in uploads])
        if entry.sha256 is not None
    }
    taken = {upload.path: upload.size for upload in uploads if upload.path not in ignored}
    visit.hub.staging.pledge(visit.repository, taken)
    visit.details["files"] = len(uploads)
    return JSONResponse(
        {
            "files": [
                {
                    "path": upload.path,
                    "uploadMode": "lfs" if _is_large(upload, large) else "regular",
                    "shouldIgnore": upload.path not in taken,
                    "oid": before[upload.path].etag if upload.path in before else None,
                }
                for upload in uploads
            ]
        },
        headers={"X-Repo-Commit": commit.oid},
    )


def _is_large(upload: _Upload, large: LargeFiles) -> bool:
    # Nothing is a file of LFS that has no bytes: clients send those inside the commit anyway.
    return upload.size > LARGEST_REGULAR_FILE or (upload.size > 0 and upload.path in large)


def _uploads(body: dict[str, Any]) -> list[_Upload]:
    files = body.get("files")
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise errors.bad_request(f'"files" must be a list of at most {MAX_FILES}')
    return [_upload(file) for file in files]


def _upload(file: object) -> _Upload:
    path = file.get("path") if isinstance(file, dict) else None
    size = file.get("size") if isinstance(file, dict) else None
    if not isinstance(path, str) or not isinstance(size, int) or not 0 <= size < 1 << 53:
        raise errors.bad_request("each of the files needs a path and a size")
    try:
        return _Upload(checked_path(path), size)
    except BadIdentifierError as error:
        raise errors.unprocessable(str(error)) from error


def _ignore_file(visit: RepositoryVisit, commit: Commit, given: object) -> str:
    """Return the .gitignore that comes with the upload, or else the branch's."""
    if isinstance(given, str):
        return given
    entry = visit.hub.metadata.entry(commit, ".gitignore")
    if entry is None or entry.sha256 is None or entry.is_lfs or entry.size > MAX_SIZE:
        return ""
    with visit.hub.blobs.open(entry.sha256) as file:
        return file.read().decode(errors="replace")
