"""Commits as clients send them: one line of JSON for each change, read as it comes."""

from __future__ import annotations

import base64
import binascii
import json
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from starlette.responses import JSONResponse

from holdfast_hub_protocol import errors
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.commits import make_commit, store_file
from holdfast_hub_protocol.discussions import pulls
from holdfast_hub_protocol.endpoints import repository_route
from holdfast_hub_protocol.identifiers import is_commit_prefix, is_sha256
from holdfast_hub_protocol.operations import (
    AddLfsFile,
    AddStoredFile,
    CopyFile,
    DeleteFile,
    DeleteFolder,
    Operation,
)
from holdfast_hub_protocol.preupload import LARGEST_REGULAR_FILE
from holdfast_hub_protocol.pushing import check_push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from starlette.responses import Response
    from starlette.routing import Route

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Commit

MAX_LINE: Final = LARGEST_REGULAR_FILE * 4 // 3 + 8192
MAX_OPERATIONS: Final = 200_000
MAX_TITLE: Final = 1024  # characters
MAX_MESSAGE: Final = 64 << 10
# Small files wait for the disk together: a thousand of them would take seconds one by one.
_STORING: Final = 8
_WAITING: Final = 64
_SMALL: Final = 128 << 10
_COUNTED_AT: Final = 64 << 20  # bytes that may come beyond a quota before that is noticed


@dataclass(frozen=True)
class Header:
    """What a commit says about itself."""

    title: str
    message: str
    parent: str | None


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route that commits go to."""
    return [
        repository_route(
            hub,
            kind,
            "/commit/{revision}",
            "commit",
            commit,
            method="POST",
            verb=Verb.CONTRIBUTE,
        )
    ]


def commit(visit: RepositoryVisit) -> Response:
    """Commit to a branch or a pull request, or with `create_pr` open one; answer with the id."""
    hub, caller, repository = visit.hub, visit.caller, visit.repository
    ref = check_push(visit)
    if hub.metadata.head(repository, ref) is None:
        raise errors.revision_not_found(ref.removeprefix("refs/heads/"))

    def count(files: Sequence[AddStoredFile]) -> None:
        hub.staging.count(repository, {file.sha256: file.size for file in files})

    header, operations = read_commit(visit.hub, visit.stream, count)
    visit.details["operations"] = len(operations)
    answer: dict[str, Any] = {"success": True}

    def announce(made: Commit) -> None:
        visit.details["commit"] = made.oid
        visit.announce()

    if visit.flag("create_pr"):
        with pulls.opened_pull(
            hub,
            caller,
            repository,
            title=header.title,
            description=header.message,
            base=ref.removeprefix("refs/heads/"),
            parent=header.parent,
        ) as pull:
            visit.details["pull_request"] = pull.num
            made = make_commit(
                hub, caller, repository, pull.ref, operations,
                title=header.title, message=header.message, announce=announce,
            )  # fmt: skip
        answer["pullRequestUrl"] = f"{visit.page_of(repository.id)}/discussions/{pull.num}"
    else:
        made = make_commit(
            hub, caller, repository, ref, operations,
            title=header.title, message=header.message, expected_parent=header.parent,
            announce=announce,
        )  # fmt: skip
    answer |= {
        "commitOid": made.oid,
        "commitUrl": f"{visit.page_of(repository.id)}/commit/{made.oid}",
        "hookOutput": "",
    }
    return JSONResponse(answer, headers={"X-Repo-Commit": made.oid})


def read_commit(
    hub: Hub,
    stream: Iterable[bytes],
    count: Callable[[Sequence[AddStoredFile]], None] = lambda _: None,
) -> tuple[Header, list[Operation]]:
    """Read a whole commit; files are in the blob store as soon as their line ends.

    Lines are `{"key": …, "value": {…}}`: first the header, then one for each change. HubError 400
    for anything else. `count` is told now and then what was stored, and may raise: a commit that
    no quota has room for need not come to its end.
    """
    header: Header | None = None
    uncounted = first = 0
    changes: list[Operation | Future[AddStoredFile]] = []
    with ThreadPoolExecutor(_STORING) as pool:
        waiting: deque[Future[AddStoredFile]] = deque()
        for line in _lines(stream):
            key, value = _parsed(line)
            if header is None:
                if key != "header":
                    raise errors.bad_request("the first line must be the header")
                header = _header(value)
                continue
            if len(changes) == MAX_OPERATIONS:
                raise errors.bad_request(f"more than {MAX_OPERATIONS} changes in one commit")
            if key != "file":
                changes.append(_operation(key, value))
                continue
            path = _text(value, "path")
            content = _content(path, value)
            if uncounted > _COUNTED_AT:
                count([file for each in changes[first:] if (file := _stored_file(each))])
                uncounted, first = 0, len(changes)
            uncounted += len(content)
            if len(content) > _SMALL:
                changes.append(store_file(hub, path, content))
                continue
            waiting.append(pool.submit(store_file, hub, path, content))
            changes.append(waiting[-1])
            if len(waiting) > _WAITING:
                waiting.popleft().result()
        operations = [each.result() if isinstance(each, Future) else each for each in changes]
    if header is None or not operations:
        raise errors.bad_request(
            "Add a line with the key `lfsFile`, `file`, `copyFile`, `deletedFile` or "
            "`deletedFolder`"
        )
    return header, operations


def _stored_file(change: Operation | Future[AddStoredFile]) -> AddStoredFile | None:
    done = change.result() if isinstance(change, Future) else change
    return done if isinstance(done, AddStoredFile) else None


def _lines(stream: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in stream:
        start = len(held)
        held += piece
        if b"\n" in piece:
            end = held.rindex(b"\n", start)
            for line in bytes(held[:end]).split(b"\n"):
                _check_length(line)
                if line.strip():
                    yield line
            del held[: end + 1]
        _check_length(held)
    if held.strip():
        yield bytes(held)


def _check_length(line: bytes | bytearray) -> None:
    if len(line) > MAX_LINE:
        raise errors.HubError(
            413, f"a line of a commit has at most {MAX_LINE} bytes; larger files go to LFS"
        )


def _parsed(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        document = json.loads(line)
        key, value = document["key"], document["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        key = value = None
    if not isinstance(key, str) or not isinstance(value, dict):
        raise errors.bad_request("a line of a commit is no JSON object with a key and a value")
    return key, value


def _header(value: dict[str, Any]) -> Header:
    title, message = value.get("summary"), value.get("description") or ""
    parent = value.get("parentCommit")
    if not is_text(message, MAX_MESSAGE):
        raise errors.bad_request(f'"description" must be a text of at most {MAX_MESSAGE}')
    if not is_text(title, MAX_TITLE) or not title.strip():
        raise errors.bad_request(f'"summary" must be a text of 1 to {MAX_TITLE} characters')
    if parent is not None and not (isinstance(parent, str) and is_commit_prefix(parent.lower())):
        raise errors.bad_request('"parentCommit" must be a commit id')
    first, _, rest = title.strip().partition("\n")
    return Header(first, f"{rest.strip()}\n\n{message}".strip(), parent and parent.lower())


def is_text(value: object, most: int) -> TypeGuard[str]:
    """Tell whether a value is a text that git and both databases can hold."""
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def _operation(key: str, value: dict[str, Any]) -> Operation:
    path = _text(value, "path")
    match key:
        case "lfsFile":
            oid, size = _text(value, "oid"), value.get("size")
            if value.get("algo", "sha256") != "sha256" or not is_sha256(oid):
                raise errors.bad_request(f"{path}: expected a SHA-256 digest")
            if size is not None and (not isinstance(size, int) or size < 0):
                raise errors.bad_request(f"{path}: malformed size")
            return AddLfsFile(path, oid, size)
        case "deletedFile" | "deletedEntry":
            return DeleteFile(path)
        case "deletedFolder":
            return DeleteFolder(path)
        case "copyFile":
            revision = value.get("srcRevision")
            if revision is not None and not isinstance(revision, str):
                raise errors.bad_request(f"{path}: malformed srcRevision")
            return CopyFile(path, _text(value, "srcPath"), revision)
    raise errors.bad_request(f"no such change: {key[:40]!r}")


def _content(path: str, value: dict[str, Any]) -> bytes:
    content = _text(value, "content")
    try:
        if value.get("encoding", "utf-8") == "base64":
            data = base64.b64decode(content, validate=True)
        else:
            data = content.encode()
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise errors.bad_request(f"{path}: its content is not base64") from None
    if len(data) > LARGEST_REGULAR_FILE:
        raise errors.HubError(
            413, f"{path} has more than {LARGEST_REGULAR_FILE} bytes: upload it to LFS"
        )
    return data


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str):
        raise errors.bad_request(f'"{key}" is missing')
    return text
