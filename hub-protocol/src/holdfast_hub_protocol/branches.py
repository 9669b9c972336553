"""Branches and tags, made and removed; and a branch's history folded into one commit."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors, writing
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.commits import squash_branch
from holdfast_hub_protocol.committing import MAX_TITLE, is_text
from holdfast_hub_protocol.discussions import pulls
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_ref_name

if TYPE_CHECKING:
    from typing import Any

    from starlette.responses import Response
    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit

_PROTECTED = "main"


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes that make and remove references."""
    change = functools.partial(repository_route, hub, kind, verb=Verb.WRITE)
    return [
        change("/branch/{branch}", "create-branch", create_branch, method="POST"),
        change("/branch/{branch}", "delete-branch", delete_branch, method="DELETE"),
        change("/tag/{revision}", "create-tag", create_tag, method="POST"),
        change("/tag/{tag}", "delete-tag", delete_tag, method="DELETE"),
        change("/super-squash/{branch}", "super-squash", super_squash, method="POST"),
    ]


def create_branch(visit: RepositoryVisit) -> Response:
    """Make a branch at `startingPoint`, or at main; 409 if there is one of that name."""
    name = _new_name(visit.parameter("branch"), "branch")
    start = _body(visit).get("startingPoint")
    if start is not None and not isinstance(start, str):
        raise errors.bad_request('"startingPoint" must be a text')
    return _create(visit, f"refs/heads/{name}", visit.commit_of(start or "main"))


def create_tag(visit: RepositoryVisit) -> Response:
    """Make a tag at the URL's revision; 409 if there is one of that name."""
    commit = visit.commit()
    name = _body(visit).get("tag")
    if not isinstance(name, str):
        raise errors.bad_request('"tag" is missing')
    return _create(visit, f"refs/tags/{_new_name(name, 'tag')}", commit)


def delete_branch(visit: RepositoryVisit) -> Response:
    """Remove a branch; never main. Its commits can still be asked for by id."""
    name = visit.parameter("branch")
    if name == _PROTECTED:
        raise errors.forbidden(f"Cannot delete refs/heads/{name}")
    return _delete(visit, f"refs/heads/{name}", name)


def delete_tag(visit: RepositoryVisit) -> Response:
    """Remove a tag."""
    name = visit.parameter("tag")
    return _delete(visit, f"refs/tags/{name}", name)


def super_squash(visit: RepositoryVisit) -> Response:
    """Replace a branch's history by one commit without a parent that holds the same files.

    A pull request's too, by its whole name: refs/pr/N.
    """
    branch = visit.parameter("branch")
    message = _body(visit).get("message") or f"Super-squash branch '{branch}'"
    if not is_text(message, MAX_TITLE):
        raise errors.bad_request(f'"message" must be a text of at most {MAX_TITLE} characters')
    title, _, rest = message.strip().partition("\n")

    def announce(made: Commit) -> None:
        visit.details["commit"] = made.oid
        visit.announce()

    made = squash_branch(
        visit.hub,
        visit.caller,
        visit.repository,
        f"refs/heads/{branch}" if pulls.number(branch) is None else branch,
        title=title,
        message=rest.strip(),
        announce=announce,
    )
    return JSONResponse({"commitOid": made.oid}, headers={"X-Repo-Commit": made.oid})


def _create(visit: RepositoryVisit, ref: str, commit: Commit) -> Response:
    visit.details |= {"ref": ref, "commit": commit.oid}
    with writing.transaction(visit.hub, visit.repository) as connection:
        if writing.head_oid(connection, visit.repository, ref) is not None:
            raise errors.conflict(f"Reference {ref} already exists")
        key = writing.commit_key(connection, visit.repository, commit.oid)
        if key is None:
            raise errors.revision_not_found(commit.oid)
        writing.point(connection, visit.repository, ref, key)
        visit.announce()
    return JSONResponse({"ref": ref, "targetCommit": commit.oid})


def _delete(visit: RepositoryVisit, ref: str, name: str) -> Response:
    visit.details["ref"] = ref
    with writing.transaction(visit.hub, visit.repository) as connection:
        if not writing.unpoint(connection, visit.repository, ref):
            raise errors.revision_not_found(name)
        visit.announce()
    return JSONResponse({})


def _new_name(name: str, what: str) -> str:
    try:
        return checked_ref_name(name)
    except BadIdentifierError as error:
        raise errors.bad_request(f"Invalid reference for a {what}: {error}") from error


def _body(visit: RepositoryVisit) -> dict[str, Any]:
    return visit.json() if visit.body.strip() else {}
