"""The one way in: who asks, may they, answer, note it; every handler stands behind this."""

from __future__ import annotations

import functools
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import AccessEvent, Verdict
from holdfast_hub_protocol.identifiers import (
    BadIdentifierError,
    RepositoryId,
    checked_path,
    checked_revision,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast_hub_protocol.access import Authenticator, Authorizer, Caller, Observer
    from holdfast_hub_protocol.blobs import BlobStore
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository
    from holdfast_hub_protocol.sending import Sender

MAX_BODY_SIZE: Final = 8 << 20
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


@dataclass(frozen=True)
class Hub:
    """The stores, and whoever holds the policy."""

    metadata: MetadataStore
    blobs: BlobStore
    sender: Sender
    authenticator: Authenticator
    authorizer: Authorizer
    observer: Observer


@dataclass
class Visit:
    """One request of a known caller; handlers add to `details` what the record should say."""

    hub: Hub
    request: Request
    caller: Caller
    body: bytes
    request_id: str
    details: dict[str, str | int] = field(default_factory=dict)

    def parameter(self, name: str) -> str:
        """Return a part of the URL, decoded; raise BadIdentifierError if it cannot be."""
        return decode(self.request.path_params.get(name, ""))

    def flag(self, name: str) -> bool:
        """Tell whether a query parameter is set to something true."""
        return self.request.query_params.get(name, "").lower() in {"1", "true", "yes"}

    def count(self, name: str, default: int, most: int) -> int:
        """Return a positive whole number from the query, at most `most`."""
        text = self.request.query_params.get(name)
        if text is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
            raise errors.bad_request(f'"{name}" must be a whole number from 1')
        return min(int(text), most)

    def next_link(self, cursor: str) -> dict[str, str]:
        """Return the Link header that points at the next page of the same question."""
        url = self.request.url
        scheme = self.request.headers.get("x-forwarded-proto", url.scheme)
        host = self.request.headers.get("host", "")
        if scheme not in {"http", "https"} or not _HOST.fullmatch(host):
            raise errors.bad_request("malformed Host or X-Forwarded-Proto header")
        # The path as it came: decoding and encoding it again could change it.
        path = self.request.scope["path"]
        query = self.request.query_params
        pairs = [(key, value) for key, value in query.multi_items() if key != "cursor"]
        address = f"{scheme}://{host}{path}?{urlencode([*pairs, ('cursor', cursor)])}"
        return {"Link": f'<{address}>; rel="next"'}


@dataclass
class RepositoryVisit(Visit):
    """A visit to a repository that the caller may read."""

    repository: Repository = None  # type: ignore[assignment] # set before any handler runs

    def commit(self) -> Commit:
        """Return the commit that the URL's revision stands for; HubError if there is none."""
        try:
            revision = checked_revision(self.parameter("revision"))
        except BadIdentifierError:
            raise errors.revision_not_found("malformed") from None
        return self.commit_of(revision)

    def commit_of(self, revision: str) -> Commit:
        """Return the commit that a revision stands for; HubError if there is none."""
        self.details["revision"] = revision
        commit = self.hub.metadata.commit(self.repository, revision)
        if commit is None:
            raise errors.revision_not_found(revision)
        self.details["commit"] = commit.oid
        return commit

    def entry(self, commit: Commit) -> Entry:
        """Return the file or folder that the URL's path names; HubError if there is none."""
        try:
            path = checked_path(self.parameter("path"))
        except BadIdentifierError:
            raise errors.entry_not_found("malformed", commit.oid) from None
        self.details["path"] = path
        entry = self.hub.metadata.entry(commit, path)
        if entry is None:
            raise errors.entry_not_found(path, commit.oid)
        return entry


def account_endpoint(
    hub: Hub, operation: str, handler: Callable[[Visit], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for what concerns the caller or many repositories."""

    def answer(request: Request, body: bytes) -> Response:
        visit = Visit(hub, request, _caller(hub, request), body, _request_id(request))
        return _noted(visit, operation, "", Verdict(allowed=True), lambda: handler(visit))

    return functools.partial(_in_thread, answer)


def repository_endpoint(
    hub: Hub, kind: str, operation: str, handler: Callable[[Any], Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for one repository, named by `namespace` and `name` in the route."""

    def answer(request: Request, body: bytes) -> Response:
        caller = _caller(hub, request)
        visit = RepositoryVisit(hub, request, caller, body, _request_id(request))
        try:
            name = RepositoryId(kind, visit.parameter("namespace"), visit.parameter("name"))
        except BadIdentifierError:
            raise errors.repository_not_found() from None
        repository = hub.metadata.repository(name)
        verdict = hub.authorizer.may_read(caller, name, repository)
        if repository is None or not verdict.allowed:
            return _noted(visit, operation, str(name), verdict, _absent)
        visit.repository = repository
        return _noted(visit, operation, str(name), verdict, lambda: handler(visit))

    return functools.partial(_in_thread, answer)


def _absent() -> Response:
    raise errors.repository_not_found()


async def _in_thread(answer: Callable[[Request, bytes], Response], request: Request) -> Response:
    body = b""
    if request.method == "POST":
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_SIZE:
                raise errors.HubError(413, "Request body too large")
    return await run_in_threadpool(answer, request, body)


def _caller(hub: Hub, request: Request) -> Caller:
    header = request.headers.get("authorization")
    if header is None:
        raise errors.token_missing()
    scheme, _, token = header.partition(" ")
    caller = hub.authenticator.authenticate(token.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise errors.token_invalid()
    return caller


def _noted(
    visit: Visit,
    operation: str,
    repository: str,
    verdict: Verdict,
    handler: Callable[[], Response],
) -> Response:
    """Answer, and have the answer noted before the first byte of it is sent."""
    failure: errors.HubError | None = None
    try:
        response = handler()
        status = response.status_code
    except errors.HubError as error:
        failure, status = error, error.status
    visit.hub.observer.observe(
        AccessEvent(
            caller=visit.caller,
            operation=operation,
            method=visit.request.method,
            repository=repository,
            verdict=verdict,
            status=status,
            request_id=visit.request_id,
            details=visit.details,
        )
    )
    if failure is not None:
        raise failure
    return response


def new_request_id() -> str:
    """Return an id under which the logs, the record and the answer speak of a request."""
    return secrets.token_hex(12)


def _request_id(request: Request) -> str:
    return str(request.scope["holdfast.request_id"])
