"""Repository information as JSON: `/api/models/{id}` and each item of a listing."""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast_hub_protocol import errors, expansion
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import UNSCANNED
from holdfast_hub_protocol.endpoints import repository_endpoint, repository_route
from holdfast_hub_protocol.rendered import Rendered
from holdfast_hub_protocol.tags import tags_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit, Entry, Repository

FACTS: Final = ("cardData", "config", "safetensors", "pipeline_tag", "library_name")


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of a repository's description."""
    absent = repository_endpoint(hub, kind, "info", no_such, verb=Verb.DISCOVER)
    return [
        repository_route(hub, kind, "", "info", information, verb=Verb.DISCOVER),
        repository_route(
            hub, kind, "/revision/{revision}", "info", information, verb=Verb.DISCOVER
        ),
        # Names without a namespace are well formed elsewhere; none exists here.
        Route(f"/api/{kind}s/{{name}}", absent, methods=["GET"]),
        Route(f"/api/{kind}s/{{name}}/revision/{{revision}}", absent, methods=["GET"]),
    ]


def no_such(_: RepositoryVisit) -> Response:
    """Answer that there is no such repository."""
    raise errors.repository_not_found()


def information(visit: RepositoryVisit) -> Response:
    """Answer with a repository at its main branch or at the URL's revision."""
    if "revision" in visit.request.path_params:
        commit: Commit | None = visit.commit()
    else:
        try:
            commit = visit.commit_of("main")
        except errors.HubError:
            commit = None  # a repository of tags only is still a repository
    document = describe(visit.repository, commit)
    headers = {"X-Repo-Commit": commit.oid} if commit else None
    wanted = expansion.wanted(visit.request.query_params, visit.repository.id.kind)
    blobs = visit.flag("blobs")
    if commit is None or wanted or visit.flag("securityStatus"):
        return JSONResponse(
            _asked_for(visit, commit, document, wanted, blobs=blobs), headers=headers
        )
    siblings = visit.hub.rendered.get(
        visit.repository,
        commit,
        ("siblings", blobs),
        lambda: _siblings(visit.hub.metadata.files(commit), blobs=blobs),
    )
    document["usedStorage"] = siblings.note
    # The last brace makes room for what was rendered before.
    body = bytes(JSONResponse(document).body)[:-1] + b',"siblings":' + siblings.json + b"}"
    return Response(body, headers=headers, media_type="application/json")


def _siblings(files: Sequence[Entry], *, blobs: bool) -> Rendered:
    listed = JSONResponse([sibling(entry, blobs=blobs) for entry in files]).body
    return Rendered(bytes(listed), _stored(files))


def _stored(files: Sequence[Entry]) -> int:
    """Return the bytes that the files take, each content once."""
    return sum({entry.sha256: entry.size for entry in files}.values())


def _asked_for(
    visit: RepositoryVisit,
    commit: Commit | None,
    document: dict[str, Any],
    wanted: Sequence[str],
    *,
    blobs: bool,
) -> dict[str, Any]:
    """Return the document with its files, their scans if asked for, or just what is wanted."""
    files = visit.hub.metadata.files(commit) if commit else []
    document["siblings"] = [sibling(entry, blobs=blobs) for entry in files]
    document["usedStorage"] = _stored(files)
    if visit.flag("securityStatus"):
        document["securityRepoStatus"] = _security(visit, commit, files)
    if not wanted:
        return document
    document |= expansion.of_card(commit.facts if commit else {})
    document |= expansion.of_counts(visit.repository)
    document["mainSize"] = sum(entry.size for entry in files)
    return {key: document[key] for key in ("_id", "id", *wanted) if key in document}


def _security(
    visit: RepositoryVisit, commit: Commit | None, files: Sequence[Entry]
) -> dict[str, Any]:
    known = visit.hub.admission.security(visit.repository, commit) if commit else {}
    waiting = {"queued", "unscanned"}
    found = {entry.path: known.get(entry.path, UNSCANNED).status for entry in files}
    return {
        "scansDone": bool(found) and waiting.isdisjoint(found.values()),
        "filesWithIssues": [
            {"path": path, "level": status}
            for path, status in found.items()
            if status in {"suspicious", "unsafe"}
        ],
    }


def describe(repository: Repository, commit: Commit | None) -> dict[str, Any]:
    """Return everything about a repository but its files."""
    facts = commit.facts if commit else {}
    name = str(repository.id)
    return {
        # Clients show it, none reads meaning into it; it must only be stable and unique.
        "_id": hashlib.sha256(f"{repository.id.kind}:{name}".encode()).hexdigest()[:24],
        "id": name,
        f"{repository.id.kind}Id": name,
        "author": repository.id.namespace,
        "sha": commit.oid if commit else None,
        "lastModified": timestamp(repository.updated_at),
        "createdAt": timestamp(repository.created_at),
        "private": repository.private,
        "gated": repository.gated or False,
        "disabled": bool(repository.disabled_reason),
        "downloads": repository.downloads,
        "likes": repository.likes,
        "tags": tags_of(repository.id.kind, facts),
        **{key: facts[key] for key in FACTS if key in facts},
        "spaces": [],
    }


def sibling(entry: Entry, *, blobs: bool) -> dict[str, Any]:
    """Return a file as repository information lists it."""
    item: dict[str, Any] = {"rfilename": entry.path}
    if blobs:
        item |= {"size": entry.size, "blobId": entry.oid}
        if entry.is_lfs:
            item["lfs"] = {
                "sha256": entry.sha256,
                "size": entry.size,
                "pointerSize": entry.pointer_size,
            }
    return item


def timestamp(moment: datetime) -> str:
    """Return a moment as clients parse it: UTC, milliseconds, Z."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"
