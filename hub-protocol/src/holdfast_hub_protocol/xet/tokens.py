"""Access tokens: what a client is given for a repository, for minutes, instead of its own token.

They name the caller's token, never hold it; whoever comes with one is looked up again, so that
a revoked token ends them at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.signing import BadSignatureError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit

# Clients ask for the next one a minute before it ends.
TOKEN_SECONDS: Final = 15 * 60
_TOKEN: Final = "xet access token"  # noqa: S105 - what it is for
_TICKET: Final = "xet read address"


def write_token(visit: RepositoryVisit) -> Response:
    """Answer with where to upload to, and with what token.

    Whoever may open a pull request may: what they upload is nothing until it is committed, and
    the commit decides.
    """
    visit.hub.xorbs.expire_now_and_then(visit.repository)
    epoch = visit.hub.xorbs.current(visit.repository)
    return _grant(visit, epoch.name, {"verb": Verb.WRITE})


def read_token(visit: RepositoryVisit) -> Response:
    """Answer with where to ask for the files of a revision, and with what token."""
    commit = visit.commit()
    visit.check_fetch(commit)
    return _grant(visit, "files", {"verb": Verb.READ, "commit": commit.oid})


def writer(hub: Hub, request: Request) -> Caller:
    """Return the holder of the token to write that a request carries; HubError 401 otherwise."""
    return _holder(hub, request, Verb.WRITE)


def reader(hub: Hub, request: Request) -> Caller:
    """Return the holder of the token to read that a request carries; HubError 401 otherwise."""
    return _holder(hub, request, Verb.READ)


def ticket(visit: RepositoryVisit, claims: dict[str, str | int]) -> str:
    """Return text for an address from which the caller may read what the claims say."""
    claims = {**claims, "repository": visit.repository.key, "holder": visit.caller.token_id}
    return visit.hub.signer.sign(_TICKET, claims, TOKEN_SECONDS)


def ticket_holder(hub: Hub, request: Request) -> Caller:
    """Return for whom an address was made; HubError 403, on which clients ask for a new one."""
    try:
        claims = hub.signer.verify(_TICKET, request.path_params["ticket"])
    except BadSignatureError as error:
        raise errors.forbidden(f"This address is not valid: {error}") from None
    caller = hub.authenticator.recall(claims["holder"])
    if caller is None:
        raise errors.token_invalid()
    request.state.xet = claims
    return caller


def claims_of(visit: RepositoryVisit) -> dict[str, str | int]:
    """Return what the visitor's token or ticket says; HubError 404 if of another repository."""
    claims: dict[str, str | int] = visit.request.state.xet
    if claims["repository"] != visit.repository.key:
        raise errors.repository_not_found()
    return claims


def address(visit: RepositoryVisit, rest: str) -> str:
    """Return an address below a repository's own, which the same service answers."""
    repository = visit.repository.id
    return f"{visit.origin}/api/{repository.kind}s/{repository}/xet/{rest}"


def _grant(visit: RepositoryVisit, place: str, claims: dict[str, str]) -> Response:
    token = visit.hub.signer.sign(
        _TOKEN,
        {**claims, "repository": visit.repository.key, "holder": visit.caller.token_id},
        TOKEN_SECONDS,
    )
    url, expires = address(visit, place), int(time.time()) + TOKEN_SECONDS
    return JSONResponse(
        {"casUrl": url, "exp": expires, "accessToken": token},
        headers={
            "X-Xet-Cas-Url": url,
            "X-Xet-Token-Expiration": str(expires),
            "X-Xet-Access-Token": token,
            "Cache-Control": "no-store",
        },
    )


def _holder(hub: Hub, request: Request, verb: Verb) -> Caller:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise errors.token_missing()
    try:
        claims = hub.signer.verify(_TOKEN, token.strip())
    except BadSignatureError:
        raise errors.token_invalid() from None
    caller = hub.authenticator.recall(claims["holder"])
    if caller is None or claims["verb"] != verb:
        raise errors.token_invalid()
    request.state.xet = claims
    return caller
