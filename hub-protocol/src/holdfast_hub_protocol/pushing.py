"""Where a commit may go: a branch of who may write, or a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.discussions import pulls
from holdfast_hub_protocol.identifiers import BadIdentifierError, checked_revision

if TYPE_CHECKING:
    from holdfast_hub_protocol.endpoints import RepositoryVisit


def check_push(visit: RepositoryVisit) -> str:
    """Return the full name of the reference that the URL's revision names, if commits may go there.

    With `create_pr` that is the branch that the pull request is for, which the caller need not
    be able to write to. HubError 403 for who may not, 404 for what is no branch.
    """
    try:
        revision = checked_revision(visit.parameter("revision"))
    except BadIdentifierError:
        raise errors.revision_not_found("malformed") from None
    visit.details["revision"] = revision
    if pulls.number(revision) is not None:
        pulls.check_push(visit.hub, visit.caller, visit.repository, revision)
        return revision
    if not visit.flag("create_pr"):
        verdict = visit.hub.authorizer.may(
            visit.caller, Verb.WRITE, visit.repository.id, visit.repository
        )
        visit.verb, visit.verdict = Verb.WRITE, verdict
        if not verdict.allowed:
            raise errors.forbidden(
                verdict.message
                or f"You may not write to {visit.repository.id}; you may open a pull request"
            )
    return f"refs/heads/{revision.removeprefix('refs/heads/')}"
