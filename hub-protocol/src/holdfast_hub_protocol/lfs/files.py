"""The large files of a repository: listed, deleted for good, and lent to another repository."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.holdings import holdings
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId, is_sha256
from holdfast_hub_protocol.information import timestamp
from holdfast_hub_protocol.lfs.rewriting import forget_files
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import RepositoryVisit
    from holdfast_hub_protocol.records import Repository

PAGE: Final = 1000
MAX_DELETED: Final = 1000  # clients send as many at once
_BRANCH: Final = "refs/heads/"


def list_files(visit: RepositoryVisit) -> Response:
    """Answer with the large files of all commits, each content once, under its first name."""
    limit = visit.count("limit", PAGE, PAGE)
    cursor = visit.request.query_params.get("cursor")
    query = (
        sa.select(holdings)
        .where(
            holdings.c.repository_id == visit.repository.key,
            holdings.c.is_lfs,
            holdings.c.sha256 > (decode_cursor(cursor) if cursor else ""),
        )
        .order_by(holdings.c.sha256)
        .limit(limit + 1)
    )
    with visit.hub.metadata.engine.connect() as connection:
        rows = list(connection.execute(query))
    headers = {}
    if len(rows) > limit:
        rows.pop()
        headers = visit.next_link(encode_cursor(rows[-1].sha256))
    return JSONResponse([_item(row) for row in rows], headers=headers)


def delete_files(visit: RepositoryVisit) -> Response:
    """Take large files out of every commit that has them: those commits are made anew without."""
    asked = visit.json().get("deletions")
    digests = asked.get("sha") if isinstance(asked, dict) else None
    if (
        not isinstance(asked, dict)
        or not isinstance(digests, list)
        or len(digests) > MAX_DELETED
        or not all(isinstance(digest, str) and is_sha256(digest) for digest in digests)
    ):
        raise errors.bad_request(f'"deletions" needs "sha", at most {MAX_DELETED} digests')
    if not asked.get("rewriteHistory", True):
        raise errors.bad_request(
            "Files are deleted here only with rewriteHistory: "
            "no commit stands that names content which is not there"
        )
    forgotten = forget_files(visit.hub, visit.caller, visit.repository, set(digests))
    visit.details |= {"files": len(digests), "commits": forgotten}
    return JSONResponse({"rewrittenCommits": forgotten})


def duplicate(visit: RepositoryVisit) -> Response:
    """Let a file of main be committed to another repository, which the caller may write to.

    Only what they would get by downloading it: a revision in quarantine lends nothing.
    """
    target, digests = _duplication(visit)
    commit = visit.commit_of("main")
    visit.check_fetch(commit)
    files = {entry.sha256: entry.size for entry in visit.hub.metadata.files(commit) if entry.is_lfs}
    sizes = {digest: files[digest] for digest in digests if digest in files}
    visit.hub.staging.reserve(target, sizes)
    present = set(visit.hub.staging.stage_all(target.key, sizes))
    visit.details |= {"into": str(target.id), "files": len(present)}
    return JSONResponse(
        {
            "duplicated": [{"sha256": digest} for digest in digests if digest in present],
            "failed": [
                {"sha256": digest, "error": "not a large file of main"}
                for digest in digests
                if digest not in present
            ],
        }
    )


def _duplication(visit: RepositoryVisit) -> tuple[Repository, list[str]]:
    document = visit.json()
    target, files = document.get("target"), document.get("files")
    try:
        if not isinstance(target, dict) or not isinstance(files, list):
            raise TypeError  # noqa: TRY301 - told below
        name = RepositoryId.parse(target["name"], target.get("type", "model"))
        digests = list(dict.fromkeys(each["sha256"] for each in files))
    except (TypeError, KeyError, AttributeError, BadIdentifierError):
        raise errors.bad_request('expected "target" and "files"') from None
    if len(digests) > MAX_DELETED or not all(map(_is_digest, digests)):
        raise errors.bad_request(f'"files" needs at most {MAX_DELETED} SHA-256 digests')
    found = visit.hub.metadata.repository(name)
    may = visit.hub.authorizer.may
    verdict = may(visit.caller, Verb.CONTRIBUTE, name, found)
    if found is None or not may(visit.caller, Verb.DISCOVER, name, found).allowed:
        raise errors.repository_not_found()
    if not verdict.allowed:
        raise errors.forbidden(verdict.message or f"You may not contribute to {name}")
    return found, digests


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and is_sha256(value)


def _item(row: sa.Row[Any]) -> dict[str, Any]:
    pushed = row.pushed_at
    return {
        "fileOid": row.sha256,
        "oid": row.sha256,
        "filename": row.path,
        "size": row.size,
        "pushedAt": timestamp(pushed.replace(tzinfo=UTC) if pushed.tzinfo is None else pushed),
        "ref": row.ref.removeprefix(_BRANCH),
    }
