"""`/api/{kind}s/{id}/discussions`: discussions and pull requests as clients call them."""

from __future__ import annotations

import functools
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors, writing
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.discussions import diff, documents, pulls, store
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.identifiers import BadIdentifierError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa
    from starlette.responses import Response
    from starlette.routing import Route

    from holdfast_hub_protocol.discussions.records import Discussion, Event
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit

PAGE: Final = 50
MAX_PAGE_NUMBER: Final = 1_000_000
MIN_TITLE: Final = 3
MAX_TITLE: Final = 200
MAX_TEXT: Final = 64 << 10  # characters of a comment
MAX_EDITS: Final = 100  # of one comment, all of which are kept
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_Kind = Literal["discussion", "pull_request", "all"]
_Filter = Literal["open", "closed", "all"]
_T = TypeVar("_T", bound=str)


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of discussions."""
    base, one = "/discussions", "/discussions/{num}"
    see = functools.partial(repository_route, hub, kind, verb=Verb.DISCOVER)
    say = functools.partial(repository_route, hub, kind, method="POST", verb=Verb.CONTRIBUTE)
    write = functools.partial(repository_route, hub, kind, method="POST", verb=Verb.WRITE)
    return [
        see(base, "discussions", listing),
        see(one, "discussions", details),
        say(base, "discuss", create),
        say(f"{one}/comment", "discuss", comment),
        say(f"{one}/comment/{{event}}/edit", "discuss", edit),
        say(f"{one}/comment/{{event}}/hide", "discuss", hide),
        say(f"{one}/title", "discuss", rename),
        say(f"{one}/status", "discuss", change_status),
        write(f"{one}/merge", "merge", merge),
    ]


def listing(visit: RepositoryVisit) -> Response:
    """Answer with a page of discussions, newest first; `p` counts pages from 0."""
    query = visit.request.query_params
    page = query.get("p", "0")
    if not re.fullmatch(r"[0-9]{1,9}", page) or int(page) > MAX_PAGE_NUMBER:
        raise errors.bad_request('"p" must be the number of a page, from 0')
    kinds: tuple[_Kind, ...] = ("all", "discussion", "pull_request")
    statuses: tuple[_Filter, ...] = ("all", "open", "closed")
    start = int(page) * PAGE
    author = query.get("author") or None
    if author is not None and "\0" in author:
        raise errors.bad_request('"author" must be a name')
    with visit.hub.metadata.engine.connect() as connection:
        count, found = store.listing(
            connection,
            visit.repository,
            kind=_one_of(query.get("type") or "all", "type", kinds),
            status=_one_of(query.get("status") or "all", "status", statuses),
            author=author,
            start=start,
            limit=PAGE,
        )
        closed = store.count_closed(connection, visit.repository)
    return JSONResponse(
        {
            "discussions": [documents.listed(visit.repository, each) for each in found],
            "count": count,
            "start": start,
            "numClosedDiscussions": closed,
        }
    )


def details(visit: RepositoryVisit) -> Response:
    """Answer with one discussion; `diff=1` adds what a pull request changes."""
    repository = visit.repository
    with visit.hub.metadata.engine.connect() as connection:
        discussion = _discussion(visit, connection)
        told = [
            (event.created_at, documents.happened(event))
            for event in store.events(connection, discussion)
        ]
    conflicting: list[str] = []
    text = None
    if discussion.is_pull_request:
        told += [
            (commit.date, documents.pushed(commit))
            for commit in pulls.pushed(visit.hub, repository, discussion)
        ]
        told.sort(key=lambda each: each[0])
        if discussion.status in {"draft", "open"} or visit.flag("diff"):
            try:
                found = pulls.compare(visit.hub, repository, discussion)
            except errors.HubError:
                found = None  # the branch that it was for is gone
            if found is not None and visit.flag("diff") and _may_fetch(visit, found):
                text = diff.unified(found.changes, visit.hub.blobs.path)
            if found is not None and discussion.status in {"draft", "open"}:
                conflicting = found.conflicts
    document = documents.detailed(repository, discussion, [event for _, event in told], conflicting)
    if text is not None:
        document["diff"] = text
    return JSONResponse(document)


def _may_fetch(visit: RepositoryVisit, found: pulls.Comparison) -> bool:
    """Tell whether the caller may have the files that a difference quotes."""
    repository = visit.repository
    if not visit.hub.authorizer.may(visit.caller, Verb.READ, repository.id, repository).allowed:
        return False
    try:
        visit.check_fetch(found.start)
        visit.check_fetch(found.head)
    except errors.HubError:
        return False
    return True


def create(visit: RepositoryVisit) -> Response:
    """Open a discussion or, as a draft, a pull request against main."""
    body = visit.json()
    title = _title(body)
    description = _text(body, "description")
    if body.get("pullRequest") is True:
        pull = pulls.open_pull(
            visit.hub,
            visit.caller,
            visit.repository,
            title=title,
            description=description,
            status="draft",
            announce=functools.partial(_announce, visit),
        )
    else:
        with _changing(visit) as connection:
            pull = store.add(
                connection,
                visit.repository,
                title=title,
                author=visit.caller.name,
                status="open",
            )
            visit.details["discussion"] = pull.num
            if description:
                _add_comment(visit, connection, pull, description)
    document = documents.listed(visit.repository, pull)
    return JSONResponse({**document, "pullRequest": pull.is_pull_request})


def comment(visit: RepositoryVisit) -> Response:
    """Add a comment."""
    text = _text(visit.json(), "comment", needed=True)
    with _changing(visit) as connection:
        event = _add_comment(visit, connection, _discussion(visit, connection), text)
    return JSONResponse({"newMessage": documents.happened(event)})


def edit(visit: RepositoryVisit) -> Response:
    """Change one's own comment; what it said before stays in its history."""
    text = _text(visit.json(), "content", needed=True)
    with _changing(visit) as connection:
        event = _comment_of(visit, connection)
        if event.author != visit.caller.name:
            raise errors.forbidden("Only its author may edit a comment")
        if event.data["hidden"] or len(event.data["history"]) >= MAX_EDITS:
            raise errors.bad_request("This comment cannot be edited any more")
        data = documents.edited(event.data, text, visit.caller.name, datetime.now(UTC))
        event = store.change_event(connection, event, data)
    return JSONResponse({"updatedComment": documents.happened(event)})


def hide(visit: RepositoryVisit) -> Response:
    """Remove the text of a comment for good: its author's, or anybody's for who may write."""
    with _changing(visit) as connection:
        event = _comment_of(visit, connection)
        _check_owner(visit, event.author, "hide this comment")
        data = documents.hidden(visit.caller.name, datetime.now(UTC))
        event = store.change_event(connection, event, data)
    return JSONResponse({"updatedComment": documents.happened(event)})


def rename(visit: RepositoryVisit) -> Response:
    """Give a discussion another title."""
    title = _title(visit.json())
    with _changing(visit) as connection:
        discussion = _discussion(visit, connection)
        _check_owner(visit, discussion.author, "rename this discussion")
        store.change(connection, discussion, title=title)
        data = {"from": discussion.title, "to": title}
        event = store.add_event(connection, discussion, "title-change", visit.caller.name, data)
    return JSONResponse({"newTitle": documents.happened(event)})


def change_status(visit: RepositoryVisit) -> Response:
    """Close, open again or, for a draft, publish."""
    body = visit.json()
    wanted: tuple[Literal["open", "closed"], ...] = ("open", "closed")
    status = _one_of(_string(body, "status"), "status", wanted)
    remark = _text(body, "comment")
    with _changing(visit) as connection:
        discussion = _discussion(visit, connection)
        _check_owner(visit, discussion.author, "open or close this discussion")
        if discussion.status in {status, "merged"}:
            raise errors.bad_request(f"Discussion {discussion.num} is {discussion.status} already")
        if remark:
            _add_comment(visit, connection, discussion, remark)
        store.change(connection, discussion, status=status)
        data = {"status": status}
        event = store.add_event(connection, discussion, "status-change", visit.caller.name, data)
    return JSONResponse({"newStatus": documents.happened(event)})


def merge(visit: RepositoryVisit) -> Response:
    """Bring a pull request's changes to its branch."""
    body = visit.json() if visit.body.strip() not in {b"", b"null"} else {}
    remark = _text(body, "comment")
    with visit.hub.metadata.engine.connect() as connection:
        discussion = _discussion(visit, connection)
    if not discussion.is_pull_request:
        raise errors.bad_request(f"Discussion {discussion.num} is no pull request")
    announce = functools.partial(_announce, visit)
    oid = pulls.merge(
        visit.hub, visit.caller, visit.repository, discussion, remark, announce=announce
    )
    return JSONResponse({"merged": True, "mergeCommitId": oid})


def _announce(visit: RepositoryVisit, **details: str | int) -> None:
    visit.details |= details
    visit.announce()


@contextmanager
def _changing(visit: RepositoryVisit) -> Iterator[sa.Connection]:
    """Open a transaction that is on the record before anybody sees what it did."""
    with writing.transaction(visit.hub, visit.repository) as connection:
        yield connection
        visit.announce()


def _discussion(visit: RepositoryVisit, connection: sa.Connection) -> Discussion:
    text = _parameter(visit, "num")
    found = None
    if _NUMBER.fullmatch(text):
        found = store.find(connection, visit.repository, int(text))
    if found is None:
        raise errors.HubError(404, "Discussion not found", "DiscussionNotFound")
    visit.details["discussion"] = found.num
    return found


def _comment_of(visit: RepositoryVisit, connection: sa.Connection) -> Event:
    discussion = _discussion(visit, connection)
    event = store.find_event(connection, discussion, _parameter(visit, "event"))
    if event is None or event.type != "comment":
        raise errors.HubError(404, "Comment not found", "CommentNotFound")
    return event


def _add_comment(
    visit: RepositoryVisit, connection: sa.Connection, discussion: Discussion, text: str
) -> Event:
    data = documents.comment(text, visit.caller.name, datetime.now(UTC))
    return store.add_event(connection, discussion, "comment", visit.caller.name, data)


def _check_owner(visit: RepositoryVisit, author: str, deed: str) -> None:
    if author != visit.caller.name and not pulls.may_write(
        visit.hub, visit.caller, visit.repository
    ):
        raise errors.forbidden(f"Only {author} and who may write to the repository may {deed}")


def _title(body: dict[str, Any]) -> str:
    title = " ".join(_string(body, "title").split())
    if not MIN_TITLE <= len(title) <= MAX_TITLE:
        raise errors.bad_request(f'"title" must have {MIN_TITLE} to {MAX_TITLE} characters')
    return title


def _text(body: dict[str, Any], key: str, *, needed: bool = False) -> str:
    text = _string(body, key)
    if len(text) > MAX_TEXT or (needed and not text.strip()):
        raise errors.bad_request(f'"{key}" must have 1 to {MAX_TEXT} characters')
    return text


def _string(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if value is None:
        return ""
    # NUL and lone surrogates are JSON that a database refuses.
    if not isinstance(value, str) or "\0" in value or not _is_unicode(value):
        raise errors.bad_request(f'"{key}" must be text')
    return value


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _one_of(value: str, name: str, choices: tuple[_T, ...]) -> _T:
    if value not in choices:
        raise errors.bad_request(f'"{name}" must be one of {", ".join(choices)}')
    return value


def _parameter(visit: RepositoryVisit, name: str) -> str:
    try:
        return visit.parameter(name)
    except BadIdentifierError:
        return ""
