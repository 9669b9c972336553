"""The one way in: who asks, may they, answer, note it; every handler stands behind this."""

from __future__ import annotations

import functools
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from starlette.responses import Response
from starlette.routing import Route

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import AccessEvent, Verb, Verdict
from holdfast_hub_protocol.admission import Admission, DisabledError, OpenAdmission
from holdfast_hub_protocol.directory import Directory, NobodyKnown
from holdfast_hub_protocol.downloads import DownloadCounter
from holdfast_hub_protocol.identifiers import (
    BadIdentifierError,
    RepositoryId,
    checked_path,
    checked_revision,
    decode,
)
from holdfast_hub_protocol.quotas import NO_QUOTAS, Quotas
from holdfast_hub_protocol.rendered import RenderedCommits
from holdfast_hub_protocol.signing import SECRET_BYTES, Signer
from holdfast_hub_protocol.staging import Staging
from holdfast_hub_protocol.threads import in_thread, in_thread_for_anybody
from holdfast_hub_protocol.xet import READS_OVER
from holdfast_hub_protocol.xet.staged import XorbStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from starlette.requests import Request

    from holdfast_hub_protocol.access import Authenticator, Authorizer, Caller, Observer
    from holdfast_hub_protocol.blobs import BlobStore
    from holdfast_hub_protocol.bodies import Body
    from holdfast_hub_protocol.metadata import MetadataStore
    from holdfast_hub_protocol.records import Commit, Entry, Repository
    from holdfast_hub_protocol.sending import Sender

_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


_ALLOWED: Final = Verdict(allowed=True)
ABOUT_TO: Final = 0  # in place of a status: what follows is about to be done


@dataclass(frozen=True)
class Hub:
    """The stores, and whoever holds the policy."""

    metadata: MetadataStore
    blobs: BlobStore
    sender: Sender
    authenticator: Authenticator
    authorizer: Authorizer
    observer: Observer
    admission: Admission = field(default_factory=OpenAdmission)
    directory: Directory = field(default_factory=NobodyKnown)
    kinds: Sequence[str] = ("model",)
    quotas: Quotas = NO_QUOTAS
    xet_reads_over: int = READS_OVER
    # Processes that serve together share one secret.
    signer: Signer = field(default_factory=lambda: Signer(secrets.token_bytes(SECRET_BYTES)))

    @functools.cached_property
    def staging(self) -> Staging:
        """What was announced or uploaded and is in no commit yet."""
        return Staging(self.metadata, self.blobs, self.authorizer, self.quotas, self.admission)

    @functools.cached_property
    def downloads(self) -> DownloadCounter:
        """What was downloaded; whoever serves starts and closes it."""
        return DownloadCounter(self.metadata.engine)

    @functools.cached_property
    def rendered(self) -> RenderedCommits:
        """What was lately rendered of commits."""
        return RenderedCommits()

    @functools.cached_property
    def xorbs(self) -> XorbStore:
        """What newer clients uploaded and is not yet a file."""
        return XorbStore(self.blobs.root / "xet")


@dataclass
class Visit:
    """One request of a known caller; handlers add to `details` what the record should say."""

    hub: Hub
    request: Request
    caller: Caller
    incoming: Body
    request_id: str
    details: dict[str, str | int] = field(default_factory=dict)
    # What it turned out to be about, and what was decided: for the record.
    subject: str = ""
    subject_kind: str = ""
    operation: str = ""
    verb: Verb = Verb.READ
    verdict: Verdict = _ALLOWED
    _body: bytes | None = None

    @property
    def body(self) -> bytes:
        """The whole body, at most 8 MiB (HubError 413)."""
        # Not a cached_property: in Python 3.11 all instances share its lock, and one who sends
        # slowly would keep up everybody.
        if self._body is None:
            self._body = self.incoming.whole()
        return self._body

    @property
    def stream(self) -> Iterator[bytes]:
        """The body piece by piece, of any size; instead of `body`."""
        return self.incoming.pieces()

    @property
    def large_pieces(self) -> Iterator[bytes]:
        """The body a megabyte at a time, quicker than `stream` for more memory."""
        return self.incoming.large_pieces()

    def announce(self) -> None:
        """Have it noted what is about to be done, last thing in the transaction that does it.

        Nobody sees a change that is not on the record; the answer is noted by itself.
        """
        self.note(ABOUT_TO)

    def note(self, status: int) -> None:
        """Have the record say what was asked, decided and answered."""
        self.hub.observer.observe(
            AccessEvent(
                caller=self.caller,
                operation=self.operation,
                verb=self.verb,
                method=self.request.method,
                repository=self.subject,
                kind=self.subject_kind,
                verdict=self.verdict,
                status=status,
                request_id=self.request_id,
                details=self.details,
            )
        )

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; HubError 400 if it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise errors.bad_request("expected a JSON object")
        return document

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

    @property
    def origin(self) -> str:
        """Scheme and host as the client knows this hub; HubError 400 if its headers lie."""
        scheme = self.request.headers.get("x-forwarded-proto", self.request.url.scheme)
        host = self.request.headers.get("host", "")
        if scheme not in {"http", "https"} or not _HOST.fullmatch(host):
            raise errors.bad_request("malformed Host or X-Forwarded-Proto header")
        return f"{scheme}://{host}"

    def page_of(self, name: RepositoryId) -> str:
        """Return the address of a repository, as people and clients know it."""
        prefix = "" if name.kind == "model" else f"{name.kind}s/"
        return f"{self.origin}/{prefix}{name}"

    def next_link(self, cursor: str) -> dict[str, str]:
        """Return the Link header that points at the next page of the same question."""
        # The path as it came: decoding and encoding it again could change it.
        path = self.request.scope["path"]
        query = self.request.query_params
        pairs = [(key, value) for key, value in query.multi_items() if key != "cursor"]
        address = f"{self.origin}{path}?{urlencode([*pairs, ('cursor', cursor)])}"
        return {"Link": f'<{address}>; rel="next"'}


@dataclass
class RepositoryVisit(Visit):
    """A visit to a repository that the caller may read."""

    repository: Repository = None  # type: ignore[assignment] # set before any handler runs

    def commit(self) -> Commit:
        """Return the commit that the URL's revision stands for; HubError if there is none."""
        try:
            revision = self.parameter("revision")
        except BadIdentifierError:
            raise errors.revision_not_found("malformed") from None
        return self.commit_of(revision)

    def commit_of(self, revision: str) -> Commit:
        """Return the commit that a revision stands for; HubError if there is none."""
        try:
            self.details["revision"] = checked_revision(revision)
        except BadIdentifierError:
            raise errors.revision_not_found("malformed") from None
        commit = self.hub.metadata.commit(self.repository, revision)
        if commit is None:
            raise errors.revision_not_found(revision)
        self.details["commit"] = commit.oid
        return commit

    def check_fetch(self, commit: Commit) -> None:
        """Raise HubError 403 if nobody gets the files of this commit now."""
        if self.repository.disabled_reason:
            raise errors.disabled(self.repository.disabled_reason)
        try:
            self.hub.admission.check_fetch(self.caller, self.repository, commit)
        except DisabledError as error:
            self.details["disabled"] = str(error)[:200]
            raise errors.disabled(str(error)) from error

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


def identify(hub: Hub, request: Request) -> Caller:
    """Return whom the bearer token stands for; HubError 401 without a good one."""
    header = request.headers.get("authorization")
    if header is None:
        raise errors.token_missing()
    scheme, _, token = header.partition(" ")
    caller = hub.authenticator.authenticate(token.strip()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise errors.token_invalid()
    return caller


def open_endpoint(
    handler: Callable[[Request, Body], Response],
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for anybody: for what tells nothing that the asker did not bring."""
    return functools.partial(in_thread_for_anybody, handler)


def account_endpoint(
    hub: Hub,
    operation: str,
    handler: Callable[[Visit], Response],
    *,
    verb: Verb = Verb.READ,
    identify: Callable[[Hub, Request], Caller] = identify,
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for what concerns the caller or many repositories.

    `verb` is for the record; such handlers decide for themselves.
    """

    def answer(request: Request, body: Body) -> Response:
        visit = Visit(hub, request, identify(hub, request), body, _request_id(request))
        visit.operation, visit.verb = operation, verb
        return _noted(visit, lambda: handler(visit))

    return functools.partial(in_thread, answer)


def repository_endpoint(  # noqa: PLR0913 - one way in, for all that differs
    hub: Hub,
    kind: str,
    operation: str,
    handler: Callable[[Any], Response],
    *,
    verb: Verb = Verb.READ,
    identify: Callable[[Hub, Request], Caller] = identify,
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for one repository, named by `namespace` and `name` in the route.

    Handlers take a RepositoryVisit, and are called only if the caller may do `verb`.
    """

    def named(visit: Visit) -> RepositoryId:
        return RepositoryId(kind, visit.parameter("namespace"), visit.parameter("name"))

    def answer(request: Request, body: Body) -> Response:
        visit = RepositoryVisit(hub, request, identify(hub, request), body, _request_id(request))
        return _of_repository(visit, operation, verb, handler, named)

    return functools.partial(in_thread, answer)


def body_endpoint(
    hub: Hub,
    operation: str,
    handler: Callable[[Any], Response],
    named: Callable[[Visit], RepositoryId],
    *,
    verb: Verb,
) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint for one repository that the body names, as `named` finds it there."""

    def answer(request: Request, body: Body) -> Response:
        visit = RepositoryVisit(hub, request, identify(hub, request), body, _request_id(request))
        return _of_repository(visit, operation, verb, handler, named)

    return functools.partial(in_thread, answer)


def repository_route(  # noqa: PLR0913 - a route is all of this
    hub: Hub,
    kind: str,
    path: str,
    operation: str,
    handler: Callable[[Any], Response],
    *,
    method: str = "GET",
    verb: Verb = Verb.READ,
) -> Route:
    """Return the route `/api/{kind}s/{namespace}/{name}` + `path`."""
    endpoint = repository_endpoint(hub, kind, operation, handler, verb=verb)
    return Route(f"/api/{kind}s/{{namespace}}/{{name}}{path}", endpoint, methods=[method])


def _of_repository(
    visit: RepositoryVisit,
    operation: str,
    verb: Verb,
    handler: Callable[[Any], Response],
    named: Callable[[Visit], RepositoryId],
) -> Response:
    """Find the repository, decide, and answer: by the handler, a redirect or a refusal."""
    hub = visit.hub
    try:
        name = named(visit)
    except BadIdentifierError:
        raise errors.repository_not_found() from None
    found = hub.metadata.named(name)
    moved = found is not None and found.id.folded != name.folded
    name = found.id if found else name
    visit.subject, visit.subject_kind, visit.verb = str(name), name.kind, verb
    visit.operation = operation
    visit.verdict = hub.authorizer.may(visit.caller, verb, name, found)
    refusal = None
    if found is None or not visit.verdict.allowed:
        refusal = _refusal(visit, verb, name, found)
    if found is not None:
        visit.repository = found

    def respond() -> Response:
        if refusal is not None:
            raise refusal
        return _redirect(visit, name) if moved else handler(visit)

    return _noted(visit, respond)


def _refusal(
    visit: Visit, verb: Verb, name: RepositoryId, found: Repository | None
) -> errors.HubError:
    # Asked for absent ones too: a denial takes as long as an absence.
    may = visit.hub.authorizer.may
    visible = verb is not Verb.DISCOVER and may(visit.caller, Verb.DISCOVER, name, found).allowed
    if found is None or not visible:
        return errors.repository_not_found()
    if verb is Verb.READ:
        return errors.gated(str(name), visit.verdict.message)
    return errors.forbidden(visit.verdict.message or f"You may not {verb} in {name}")


def _redirect(visit: Visit, name: RepositoryId) -> Response:
    """Send the client to the same address under the repository's present name."""
    asked = visit.request.path_params
    if "namespace" not in asked:  # the body names it, and no address could be another's
        raise errors.repository_not_found()
    path = str(visit.request.scope["path"])
    old, new = f"/{asked['namespace']}/{asked['name']}", f"/{quote(str(name))}"
    query = visit.request.url.query
    location = path.replace(old, new, 1) + (f"?{query}" if query else "")
    return Response(None, 307, {"Location": location})


def _noted(visit: Visit, handler: Callable[[], Response]) -> Response:
    """Answer, and have the answer noted before the first byte of it is sent."""
    failure: errors.HubError | None = None
    try:
        response = handler()
        status = response.status_code
    except errors.HubError as error:
        failure, status = error, error.status
    except BadIdentifierError as error:  # a name that nothing can have
        failure, status = errors.bad_request(str(error)), 400
    visit.note(status)
    if failure is not None:
        raise failure
    return response


def new_request_id() -> str:
    """Return an id under which the logs, the record and the answer speak of a request."""
    return secrets.token_hex(12)


def _request_id(request: Request) -> str:
    return str(request.scope["holdfast.request_id"])
