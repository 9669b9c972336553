"""Reviews over HTTP, for the console, the command line and the serving hosts.

GET  /api/holdfast/models?state=…&limit=…&cursor=…
GET  /api/holdfast/models/{namespace}/{name}/review/{revision}
POST /api/holdfast/models/{namespace}/{name}/review/{revision}/{approve|quarantine|reject}
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.committing import is_text
from holdfast_hub_protocol.endpoints import account_endpoint
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId, checked_revision
from holdfast_hub_protocol.popularity import decode_moment
from holdfast_hub_protocol.tree import decode_cursor, encode_cursor
from holdfast_model_registry.admission.admission import actor_of
from holdfast_model_registry.review import store
from holdfast_model_registry.review.states import State, TransitionError

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, Visit
    from holdfast_hub_protocol.records import Commit, Repository
    from holdfast_model_registry.review.reviewing import Reviewing
    from holdfast_model_registry.review.rights import Rights

MAX_SENT_NOTE: Final = 64 << 10  # with its spaces; what is kept is less
PAGE: Final = 100
MAX_PAGE: Final = 1000
_MODELS: Final = "/api/holdfast/models"
_REVIEW: Final = f"{_MODELS}/{{namespace}}/{{name}}/review/{{revision}}"
_TO: Final = {"quarantine": State.QUARANTINED, "reject": State.REJECTED}


class ReviewRoutes:
    """The endpoints over one registry's reviews."""

    def __init__(self, reviewing: Reviewing, rights: Rights) -> None:
        self.reviewing = reviewing
        self.rights = rights

    def __call__(self, hub: Hub) -> list[Route]:
        """Return the routes, behind the hub's authentication and on its record."""
        return [
            Route(_MODELS, account_endpoint(hub, "reviews", self.listing)),
            Route(_REVIEW, account_endpoint(hub, "review", self.detail)),
            Route(
                f"{_REVIEW}/{{verb}}",
                account_endpoint(hub, "review", self.act, verb=Verb.ADMIN),
                methods=["POST"],
            ),
        ]

    def listing(self, visit: Visit) -> Response:
        """Answer with the reviews of models that the caller may see, newest change first."""
        asked = visit.request.query_params.get("state", "")
        if asked and asked not in set(State):
            raise errors.bad_request(f"state is one of {', '.join(State)}")
        state = State(asked) if asked else None
        limit = visit.count("limit", PAGE, MAX_PAGE)
        cursor = visit.request.query_params.get("cursor")
        after = _mark(cursor) if cursor else None
        found: list[store.Listed] = []
        more = True
        while more and len(found) <= limit:
            with self.reviewing.engine.connect() as connection:
                page = store.listed(connection, state, after=after, limit=limit + 1)
            seen = self._seen(visit, {each.review.repository for each in page})
            found += [each for each in page if each.review.repository in seen]
            more = len(page) > limit
            after = _after(page[-1]) if page else None
        headers = {}
        if len(found) > limit:
            del found[limit:]
            headers = visit.next_link(encode_cursor(json.dumps(_after(found[-1]))))
        visit.details["count"] = len(found)
        return JSONResponse([self.reviewing.item(each) for each in found], headers=headers)

    def detail(self, visit: Visit) -> Response:
        """Answer with one revision's review."""
        repository, commit = self._revision(visit)
        document = self.reviewing.detail(repository, commit)
        document["may_approve"] = self.rights.may_approve(visit.caller, repository)
        return JSONResponse(document)

    def act(self, visit: Visit) -> Response:
        """Approve, quarantine or reject, and answer with how the review is then."""
        verb = visit.parameter("verb")
        if verb != "approve" and verb not in _TO:
            raise errors.HubError(404, f"no such action: {verb}")
        repository, commit = self._revision(visit)
        visit.details["review"] = verb
        if not self.rights.may_approve(visit.caller, repository):
            raise errors.forbidden(
                f"You may not {verb} {repository.id}: reviewers and operators may"
            )
        body = visit.json() if visit.body else {}
        note, actor = body.get("note") or "", actor_of(visit.caller)
        if not is_text(note, MAX_SENT_NOTE):
            raise errors.bad_request('"note" must be a text')
        try:
            if verb == "approve":
                self.reviewing.approve(actor, repository, commit, note)
            else:
                self.reviewing.hold_back(actor, repository, commit, _TO[verb], note)
        except TransitionError as error:
            message = f"{repository.id} at {commit.oid[:12]}: {error}"
            if error.forbidden:
                raise errors.forbidden(message) from error
            raise errors.conflict(message) from error
        return JSONResponse(self.reviewing.detail(repository, commit))

    def _revision(self, visit: Visit) -> tuple[Repository, Commit]:
        """Return what the URL names, if the caller may know of it: as a reader or a reviewer."""
        metadata = self.reviewing.storage.metadata
        try:
            name = RepositoryId("model", visit.parameter("namespace"), visit.parameter("name"))
            revision = checked_revision(visit.parameter("revision"))
        except BadIdentifierError:
            raise errors.repository_not_found() from None
        visit.details["model"] = str(name)
        repository = metadata.repository(name)
        visible = self.rights.authorizer.may(visit.caller, Verb.DISCOVER, name, repository).allowed
        if repository is None:
            raise errors.repository_not_found()
        if not visible and not self.rights.may_approve(visit.caller, repository):
            raise errors.repository_not_found()
        commit = metadata.commit(repository, revision)
        if commit is None:
            raise errors.revision_not_found(revision)
        visit.details["commit"] = commit.oid
        return repository, commit

    def _seen(self, visit: Visit, keys: set[int]) -> set[int]:
        """Return those of the repositories that the caller reads or reviews."""
        repositories = self.reviewing.storage.metadata.repositories_by_key(sorted(keys))
        readable = {each.key for each in visit.hub.authorizer.readable(visit.caller, repositories)}
        return readable | {
            each.key
            for each in repositories
            if each.key not in readable and self.rights.may_approve(visit.caller, each)
        }


def _after(listed: store.Listed) -> tuple[str, int, str]:
    return listed.review.updated_at, listed.review.repository, listed.review.commit


def _mark(cursor: str) -> tuple[str, int, str]:
    try:
        moment, repository, commit = json.loads(decode_cursor(cursor))
        at = decode_moment(moment).isoformat()
    except (ValueError, TypeError, RecursionError):
        raise errors.bad_request("malformed cursor") from None
    if type(repository) is not int or not 0 <= repository < 1 << 31 or not is_text(commit, 64):
        raise errors.bad_request("malformed cursor")
    return at, repository, commit
