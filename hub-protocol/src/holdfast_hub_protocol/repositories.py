"""Making, describing, moving and deleting repositories."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast_hub_protocol import errors, schema, writing
from holdfast_hub_protocol.access import Verb
from holdfast_hub_protocol.attributes import NAME, default_attributes
from holdfast_hub_protocol.commits import first_commit, store_file
from holdfast_hub_protocol.endpoints import account_endpoint, body_endpoint, repository_route
from holdfast_hub_protocol.identifiers import BadIdentifierError, RepositoryId
from holdfast_hub_protocol.listings import index_repository
from holdfast_hub_protocol.records import Repository
from holdfast_hub_protocol.snapshots import insert

if TYPE_CHECKING:
    from starlette.responses import Response

    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit, Visit

_GATES: Final = {False: "", "auto": "auto", "manual": "manual"}
_VISIBILITIES: Final = {"private": True, "public": False}


def routes(hub: Hub) -> list[Route]:
    """Return the routes under `/api/repos`."""
    make = account_endpoint(hub, "create", create, verb=Verb.ADMIN)
    remove = body_endpoint(hub, "delete", delete, _named, verb=Verb.ADMIN)
    rename = body_endpoint(hub, "move", move, _moved_from, verb=Verb.ADMIN)
    return [
        Route("/api/repos/create", make, methods=["POST"]),
        Route("/api/repos/delete", remove, methods=["DELETE"]),
        Route("/api/repos/move", rename, methods=["POST"]),
    ]


def repository_routes(hub: Hub, kind: str) -> list[Route]:
    """Return the route of a repository's settings."""
    return [
        repository_route(
            hub, kind, "/settings", "settings", settings, method="PUT", verb=Verb.ADMIN
        )
    ]


def create(visit: Visit) -> Response:
    """Make a repository with a first commit; 409 with its address if there is one of that name."""
    hub, body = visit.hub, visit.json()
    try:
        name = _named(visit)
    except BadIdentifierError as error:
        raise errors.bad_request(str(error)) from error
    private, gated = _private(body), _gated(body)
    # `private: false` is what older clients send of themselves, in every `hf repo create`.
    public = private is False and body.get("visibility") is not None
    _decide_on(visit, name)
    attributes = store_file(hub, NAME, default_attributes().encode())
    try:
        with hub.metadata.engine.begin() as connection:
            repository = _insert(connection, name, private=not public, gated=gated or "")
            hub.authorizer.created(connection, repository.key, name, visit.caller)
            first_commit(connection, hub, visit.caller, repository, [attributes])
            visit.announce()
    except sa.exc.IntegrityError as error:
        known = hub.metadata.repository(name)
        if known is None:  # some other constraint than the name's
            raise
        raise _exists(visit, name, known.id) from error
    return JSONResponse({"url": visit.page_of(name), "id": str(name), "name": str(name)})


def delete(visit: RepositoryVisit) -> Response:
    """Delete a repository with everything that belongs to it; gc takes its blobs."""
    repository = visit.repository
    with writing.transaction(visit.hub, repository) as connection:
        key, table = repository.key, schema.entries
        snapshots = sa.select(schema.snapshots.c.id).where(schema.snapshots.c.repository_id == key)
        connection.execute(table.delete().where(table.c.snapshot_id.in_(snapshots)))
        # Children first. What other subjects keep refers to the repository, or to such rows
        # with ON DELETE CASCADE.
        for each in reversed(schema.metadata.sorted_tables):
            for column in each.c:
                if any(k.column is schema.repositories.c.id for k in column.foreign_keys):
                    connection.execute(each.delete().where(column == key))
        connection.execute(schema.repositories.delete().where(schema.repositories.c.id == key))
        visit.announce()
    visit.hub.xorbs.forget(repository)
    return JSONResponse({})


def move(visit: RepositoryVisit) -> Response:
    """Give a repository another name; the old one leads to it from now on."""
    old = visit.repository.id
    try:
        new = RepositoryId.parse(_text(visit.json(), "toRepo"), old.kind)
    except BadIdentifierError as error:
        raise errors.bad_request(str(error)) from error
    visit.details["to"] = str(new)
    _decide_on(visit, new)
    table, redirects = schema.repositories, schema.redirects
    try:
        with writing.transaction(visit.hub, visit.repository) as connection:
            _forget_redirect(connection, new)
            connection.execute(
                table.update()
                .where(table.c.id == visit.repository.key)
                .values(namespace=new.namespace, name=new.name, folded=new.folded)
            )
            index_repository(connection, visit.repository.key)
            if new.folded != old.folded:
                connection.execute(
                    redirects.insert().values(
                        kind=old.kind, folded=old.folded, repository_id=visit.repository.key
                    )
                )
            visit.announce()
    except sa.exc.IntegrityError as error:
        raise errors.conflict(f"A {new.kind} repository called {new} already exists") from error
    return JSONResponse({"url": visit.page_of(new), "id": str(new)})


def settings(visit: RepositoryVisit) -> Response:
    """Set who sees a repository and whether one has to ask for its files."""
    body, table = visit.json(), schema.repositories
    private, gated = _private(body), _gated(body)
    values: dict[str, bool | str] = {}
    if private is not None:
        values["private"] = private
    if gated is not None:
        values["gated"] = gated
    if not values:
        raise errors.bad_request("nothing to set: expected private, visibility or gated")
    visit.details |= {key: str(value) for key, value in values.items()}
    with writing.transaction(visit.hub, visit.repository) as connection:
        connection.execute(
            table.update().where(table.c.id == visit.repository.key).values(**values)
        )
        row = connection.execute(
            sa.select(table.c.private, table.c.gated).where(table.c.id == visit.repository.key)
        ).one()
        visit.announce()
    return JSONResponse({"private": row.private, "gated": row.gated or False})


def _decide_on(visit: Visit, name: RepositoryId) -> None:
    """Raise HubError 403 unless the caller may make a repository of this name."""
    verdict = visit.hub.authorizer.may_create(visit.caller, name)
    visit.verdict = verdict
    visit.subject, visit.subject_kind = visit.subject or str(name), name.kind
    if not verdict.allowed:
        raise errors.forbidden(
            verdict.message or f'You may not create a {name.kind} under "{name.namespace}"'
        )


def _exists(visit: Visit, name: RepositoryId, known: RepositoryId) -> errors.HubError:
    # The client reads the address from this answer too, where it was told not to mind.
    return errors.HubError(
        409,
        f"You already created this {name.kind} repo: {known}",
        body={"url": visit.page_of(known)},
    )


def _insert(
    connection: sa.Connection, name: RepositoryId, *, private: bool, gated: str
) -> Repository:
    now = datetime.now(UTC)
    # A new repository takes an old name from the one that had it.
    _forget_redirect(connection, name)
    key = insert(
        connection,
        schema.repositories,
        kind=name.kind,
        namespace=name.namespace,
        name=name.name,
        folded=name.folded,
        created_at=now,
        updated_at=now,
        private=private,
        gated=gated,
    )
    return Repository(key, name, now, now, private, gated)


def _forget_redirect(connection: sa.Connection, name: RepositoryId) -> None:
    table = schema.redirects
    connection.execute(
        table.delete().where(table.c.kind == name.kind, table.c.folded == name.folded)
    )


def _named(visit: Visit) -> RepositoryId:
    """Return the repository of `{type, organization, name}`; without the second, the caller's."""
    body = visit.json()
    kind = _kind(visit, body)
    name = _text(body, "name")
    namespace, slash, rest = name.partition("/")
    if not slash:
        namespace, rest = body.get("organization") or visit.caller.name, name
    if not isinstance(namespace, str):
        raise errors.bad_request('"organization" must be a text')
    return RepositoryId(kind, namespace, rest)


def _moved_from(visit: Visit) -> RepositoryId:
    body = visit.json()
    return RepositoryId.parse(_text(body, "fromRepo"), _kind(visit, body))


def _kind(visit: Visit, body: dict[str, Any]) -> str:
    kind = body.get("type") or "model"
    if kind not in visit.hub.kinds:
        raise errors.bad_request(f"there are no repositories of this type here: {str(kind)[:40]!r}")
    return str(kind)


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise errors.bad_request(f'"{key}" must be a text')
    return value


def _private(body: dict[str, Any]) -> bool | None:
    """Return what a body says about who sees it, if it does; older clients say `private`."""
    visibility, private = body.get("visibility"), body.get("private")
    if visibility is not None:
        if not isinstance(visibility, str) or visibility not in _VISIBILITIES:
            raise errors.bad_request('"visibility" must be "private" or "public"')
        return _VISIBILITIES[visibility]
    if private is not None and not isinstance(private, bool):
        raise errors.bad_request('"private" must be true or false')
    return private


def _gated(body: dict[str, Any]) -> str | None:
    gated = body.get("gated")
    if gated is None:
        return None
    if not isinstance(gated, (bool, str)) or gated not in _GATES:
        raise errors.bad_request('"gated" must be false, "auto" or "manual"')
    return _GATES[gated]
