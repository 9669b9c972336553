"""Folders: `/tree/{revision}/{path}` page by page, and `/paths-info/{revision}`."""

from __future__ import annotations

import base64
import binascii
import functools
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.admission import UNSCANNED
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_path
from holdfast_hub_protocol.information import timestamp
from holdfast_hub_protocol.rendered import Rendered
from holdfast_hub_protocol.xet.reading import tree_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit, Entry

PAGE: Final = 1000
MAX_PATHS: Final = 10_000


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of folders and paths."""
    see = functools.partial(repository_route, hub, kind, verb=Verb.DISCOVER)
    return [
        see("/tree/{revision}", "tree", tree),
        see("/tree/{revision}/{path:path}", "tree", tree),
        see("/paths-info/{revision}", "paths-info", paths_info, method="POST"),
    ]


def tree(visit: RepositoryVisit) -> Response:
    """Answer with the entries of a folder, or of all folders below it with `recursive`."""
    commit = visit.commit()
    folder = ""
    if visit.request.path_params.get("path"):
        entry = visit.entry(commit)
        if entry.sha256 is not None:
            raise errors.entry_not_found(entry.path, commit.oid)
        folder = entry.path
    limit = visit.count("limit", PAGE, PAGE)
    cursor = visit.request.query_params.get("cursor")
    after = decode_cursor(cursor) if cursor else ""
    asked = _Page(folder, after, limit, visit.flag("recursive"))
    if visit.flag("expand"):  # who may see a scan's findings, and what they are, may change
        page = _page(visit, commit, asked, expand=True)
    else:
        page = visit.hub.rendered.get(
            visit.repository,
            commit,
            ("tree", *asked),
            lambda: _page(visit, commit, asked, expand=False),
        )
    headers = {"X-Repo-Commit": commit.oid}
    if page.note:
        headers |= visit.next_link(encode_cursor(str(page.note)))
    return Response(page.json, headers=headers, media_type="application/json")


class _Page(NamedTuple):
    folder: str
    after: str
    limit: int
    recursive: bool


def _page(visit: RepositoryVisit, commit: Commit, asked: _Page, *, expand: bool) -> Rendered:
    """Return a page of entries, and the last one's path if there are more."""
    found = visit.hub.metadata.listing(
        commit,
        asked.folder,
        recursive=asked.recursive,
        after=asked.after,
        limit=asked.limit + 1,
    )
    more = len(found) > asked.limit
    del found[asked.limit :]
    body = JSONResponse(_items(visit, commit, found, expand=expand)).body
    return Rendered(bytes(body), found[-1].path if more else "")


def paths_info(visit: RepositoryVisit) -> Response:
    """Answer with those of the posted paths that are there."""
    commit = visit.commit()
    paths, expand = _asked(visit)
    visit.details["paths"] = len(paths)
    found = visit.hub.metadata.entries_at(commit, paths)
    return JSONResponse(
        _items(visit, commit, [entry for entry in found if entry.path], expand=expand),
        headers={"X-Repo-Commit": commit.oid},
    )


def _items(
    visit: RepositoryVisit, commit: Commit, entries: Sequence[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    """Return entries as clients read them; `expand` adds who changed each last, and its scan."""
    found = [item(entry) | tree_fields(visit, entry) for entry in entries]
    if not expand:
        return found
    metadata = visit.hub.metadata
    oids = {entry.last_commit for entry in entries if entry.last_commit}
    commits = metadata.commits(visit.repository, oids)
    security = visit.hub.admission.security(visit.repository, commit)
    for entry, document in zip(entries, found, strict=True):
        last = commits.get(entry.last_commit or "", commit)
        document["lastCommit"] = {
            "id": last.oid,
            "title": last.title,
            "date": timestamp(last.date),
        }
        if entry.sha256 is not None:
            known = security.get(entry.path, UNSCANNED)
            document["securityFileStatus"] = {
                "status": known.status,
                "avScan": None,
                "pickleImportScan": {"highestSafetyLevel": known.status, "message": known.detail}
                if known.detail
                else None,
            }
    return found


def item(entry: Entry) -> dict[str, Any]:
    """Return a file or folder as trees list it."""
    found: dict[str, Any] = {
        "type": "directory" if entry.sha256 is None else "file",
        "oid": entry.oid,
        "size": entry.size,
        "path": entry.path,
    }
    if entry.is_lfs:
        found["lfs"] = {
            "oid": entry.sha256,
            "size": entry.size,
            "pointerSize": entry.pointer_size,
        }
    return found


def encode_cursor(text: str) -> str:
    """Return an opaque mark of where a page ended."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_cursor(cursor: str) -> str:
    """Return where the last page ended; HubError 400 for a cursor that is none of ours."""
    try:
        text = base64.b64decode(cursor.encode("ascii"), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise errors.bad_request("malformed cursor") from None
    if "\0" in text:
        raise errors.bad_request("malformed cursor")
    return text


def _asked(visit: RepositoryVisit) -> tuple[list[str], bool]:
    try:
        text = visit.body.decode()
        if visit.request.headers.get("content-type", "").startswith("application/json"):
            document = json.loads(text)
            paths, expand = document["paths"], str(document.get("expand", ""))
        else:
            form = parse_qs(text, errors="strict", max_num_fields=MAX_PATHS + 10)
            paths, expand = form.get("paths", []), form.get("expand", [""])[0]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise errors.bad_request("expected a form or JSON with paths") from None
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or len(paths) > MAX_PATHS:
        raise errors.bad_request(f"expected at most {MAX_PATHS} paths")
    wanted = {path for given in paths if (path := _path_or_none(given)) is not None}
    return sorted(wanted), expand.lower() in {"1", "true"}


def _path_or_none(given: object) -> str | None:
    try:
        return checked_path(given.strip("/")) if isinstance(given, str) else None
    except BadIdentifierError:
        return None
