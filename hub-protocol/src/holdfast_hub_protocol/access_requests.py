"""Gated repositories: asking to be let in, and who was; admins accept, reject and grant."""

from __future__ import annotations

import functools
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qs

import sqlalchemy as sa
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.committing import is_text
from holdfast_hub_protocol.endpoints import repository_endpoint, repository_route
from holdfast_hub_protocol.information import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.records import Repository

Status = Literal["pending", "accepted", "rejected"]
STATUSES: Final[tuple[Status, ...]] = ("pending", "accepted", "rejected")
PAGE: Final = 500
_LONGEST_REASON: Final = 200
_LONGEST_NAME: Final = 200
_LONGEST_FORM: Final = 8 << 10

access_requests: Final = sa.Table(
    "access_requests",
    schema.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("name", schema.Name, nullable=False),  # of the user
    sa.Column("request_id", sa.String(24), nullable=False, unique=True),
    sa.Column("status", sa.String(8), nullable=False),
    sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("fields", schema.Document),  # what was filled in; null: granted unasked
    sa.Column("reason", sa.Text, nullable=False),  # of a rejection, for who asked
    sa.Column("decided_by", schema.Name, nullable=False),  # '' by nobody yet, or by itself
    sa.UniqueConstraint("repository_id", "name"),
)


@dataclass(frozen=True)
class AccessRequest:
    """Where somebody stands with a gated repository."""

    status: Status
    reason: str


def accepted(engine: sa.Engine, name: str, repository_keys: Sequence[int]) -> set[int]:
    """Return those of the repositories that a user was let into."""
    if not repository_keys:
        return set()
    table = access_requests
    with engine.connect() as connection:
        rows = connection.execute(
            sa.select(table.c.repository_id).where(
                table.c.name == name,
                table.c.status == "accepted",
                table.c.repository_id.in_(repository_keys),
            )
        )
        return set(rows.scalars())


def standing(engine: sa.Engine, name: str, repository_key: int) -> AccessRequest | None:
    """Return where a user stands with a repository; None if they never asked."""
    with engine.connect() as connection:
        row = _row(connection, repository_key, access_requests.c.name == name)
    return None if row is None else AccessRequest(row.status, row.reason)


def routes(hub: Hub, kind: str) -> list[Route]:
    """Return the routes of access requests."""
    base = "/user-access-request"
    admin = functools.partial(repository_route, hub, kind, verb=Verb.ADMIN)
    prefix = "" if kind == "model" else f"/{kind}s"
    return [
        *(
            admin(f"{base}/{status}", "access-requests", functools.partial(listing, status=status))
            for status in STATUSES
        ),
        admin(f"{base}/handle", "access-requests", handle, method="POST"),
        admin(f"{base}/grant", "access-requests", grant, method="POST"),
        Route(
            f"{prefix}/{{namespace}}/{{name}}/ask-access",
            repository_endpoint(hub, kind, "ask-access", ask, verb=Verb.DISCOVER),
            methods=["POST"],
        ),
    ]


def ask(visit: RepositoryVisit) -> Response:
    """Ask to be let in: at once where the gate is automatic, else by whoever administers it.

    Asking again changes nothing; who was rejected stays so until an admin says otherwise.
    """
    repository = _gated(visit.repository)
    table, caller = access_requests, visit.caller
    fields = _form(visit)
    with visit.hub.metadata.engine.begin() as connection:
        _lock(connection)
        row = _row(connection, repository.key, table.c.name == caller.name)
        status: Status = row.status if row else "pending"
        if status == "pending" and repository.gated == "auto":
            status = "accepted"
        visit.details["standing"] = status
        if row is None:
            _insert(connection, repository, caller.name, status, fields)
        elif status != row.status:
            connection.execute(table.update().where(table.c.id == row.id).values(status=status))
        if row is None or status != row.status:
            visit.announce()
    return JSONResponse({"status": status})


def listing(visit: RepositoryVisit, status: Status) -> Response:
    """Answer with the requests that have this status, oldest first."""
    repository = _gated(visit.repository)
    table = access_requests
    cursor = visit.request.query_params.get("cursor", "0")
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 16):
        raise errors.bad_request("malformed cursor")
    limit = visit.count("limit", PAGE, PAGE)
    statement = (
        sa.select(table)
        .where(
            table.c.repository_id == repository.key,
            table.c.status == status,
            table.c.id > int(cursor),
        )
        .order_by(table.c.id)
        .limit(limit + 1)
    )
    with visit.hub.metadata.engine.connect() as connection:
        rows = connection.execute(statement).all()
    headers = visit.next_link(str(rows[limit - 1].id)) if len(rows) > limit else {}
    return JSONResponse([_item(row) for row in rows[:limit]], headers=headers)


def handle(visit: RepositoryVisit) -> Response:
    """Set the status of a request; 404 if there is none, or it has that status."""
    repository = _gated(visit.repository)
    document = visit.json()
    status = document.get("status")
    reason = document.get("rejectionReason")
    if status not in STATUSES:
        raise errors.bad_request('"status" must be pending, accepted or rejected')
    if reason is not None and (status != "rejected" or not is_text(reason, _LONGEST_REASON)):
        raise errors.bad_request(
            f'"rejectionReason" goes with rejecting, and has at most {_LONGEST_REASON} characters'
        )
    table = access_requests
    with visit.hub.metadata.engine.begin() as connection:
        _lock(connection)
        row = _row(connection, repository.key, _which(document))
        if row is None:
            raise errors.HubError(404, "There is no such access request")
        if row.status == status:
            raise errors.HubError(404, f"The access request is {status} already")
        connection.execute(
            table.update()
            .where(table.c.id == row.id)
            .values(status=status, reason=reason or "", decided_by=visit.caller.name)
        )
        visit.details |= {"user": row.name, "standing": status}
        visit.announce()
    return JSONResponse(_item(row) | {"status": status})


def grant(visit: RepositoryVisit) -> Response:
    """Let a user in who did not ask, or whatever became of their request."""
    repository = _gated(visit.repository)
    name = visit.json().get("user")
    if not is_text(name, _LONGEST_NAME):
        raise errors.bad_request('"user" must be a name')
    visit.details["user"] = name[:100]
    if visit.hub.directory.teams(name) is None:
        raise errors.HubError(404, f"There is no user {name}")
    table = access_requests
    with visit.hub.metadata.engine.begin() as connection:
        _lock(connection)
        row = _row(connection, repository.key, table.c.name == name)
        if row is not None and row.status == "accepted":
            raise errors.bad_request(f"{name} has access already")
        if row is None:
            _insert(connection, repository, name, "accepted", None, by=visit.caller.name)
        else:
            connection.execute(
                table.update()
                .where(table.c.id == row.id)
                .values(status="accepted", reason="", decided_by=visit.caller.name)
            )
        visit.details["standing"] = "accepted"
        visit.announce()
    return JSONResponse({"user": name, "status": "accepted"})


def _gated(repository: Repository) -> Repository:
    if not repository.gated:
        raise errors.bad_request(f"{repository.id} is not gated")
    return repository


def _which(document: dict[str, Any]) -> sa.ColumnElement[bool]:
    name, request_id = document.get("user"), document.get("requestId")
    given = name if request_id is None else request_id
    if (name is None) == (request_id is None) or not is_text(given, _LONGEST_NAME):
        raise errors.bad_request('expected one of "user" and "requestId"')
    column = access_requests.c.name if request_id is None else access_requests.c.request_id
    return column == given


def _form(visit: RepositoryVisit) -> dict[str, Any]:
    """Return what was filled in: a form as browsers send it, or JSON; nothing at all will do."""
    body = visit.body
    if len(body) > _LONGEST_FORM:
        raise errors.HubError(413, f"A form has at most {_LONGEST_FORM} bytes")
    if not body.strip():
        return {}
    kind = visit.request.headers.get("content-type", "")
    if kind.startswith("application/json"):
        document = visit.json()
    else:
        try:
            pairs = parse_qs(body.decode(), errors="strict", max_num_fields=100)
        except ValueError:
            raise errors.bad_request("expected a form or JSON") from None
        document = {key: values[-1] for key, values in pairs.items()}
    if "\\u0000" in json.dumps(document):
        raise errors.bad_request("NUL in the form")
    return document


def _row(
    connection: sa.Connection, repository_key: int, which: sa.ColumnElement[bool]
) -> sa.Row[Any] | None:
    return connection.execute(
        sa.select(access_requests).where(access_requests.c.repository_id == repository_key, which)
    ).one_or_none()


def _insert(  # noqa: PLR0913 - a row
    connection: sa.Connection,
    repository: Repository,
    name: str,
    status: Status,
    fields: dict[str, Any] | None,
    *,
    by: str = "",
) -> None:
    connection.execute(
        access_requests.insert().values(
            repository_id=repository.key,
            name=name,
            request_id=secrets.token_hex(12),
            status=status,
            asked_at=datetime.now(UTC),
            fields=sa.null() if fields is None else fields,
            reason="",
            decided_by=by,
        )
    )


def _lock(connection: sa.Connection) -> None:
    """Let one at a time read and write: two who ask at once make one request."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(7204402)))
    else:
        connection.execute(access_requests.delete().where(sa.false()))


def _item(row: sa.Row[Any]) -> dict[str, Any]:
    asked = row.asked_at if row.asked_at.tzinfo else row.asked_at.replace(tzinfo=UTC)
    item = {
        "user": {"type": "user", "user": row.name, "fullname": row.name, "avatarUrl": ""},
        "requestId": row.request_id,
        "status": row.status,
        "timestamp": timestamp(asked),
    }
    if row.fields:
        item["fields"] = row.fields
    if row.decided_by:
        item["grantedBy"] = {"user": row.decided_by}
    return item
