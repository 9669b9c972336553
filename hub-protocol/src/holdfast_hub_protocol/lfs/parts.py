"""Uploads in parts: each part is kept when it has come, so that only what failed comes again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from starlette.responses import JSONResponse, Response

from holdfast_hub_protocol import errors, schema
from holdfast_hub_protocol.blobs import DigestMismatchError
from holdfast_hub_protocol.holdings import insert_missing
from holdfast_hub_protocol.lfs.addresses import announced
from holdfast_hub_protocol.lfs.uploads import check_length, refusals, stage, unless_deleted

if TYPE_CHECKING:
    from holdfast_hub_protocol.blob_storage import Partial
    from holdfast_hub_protocol.endpoints import Hub, RepositoryVisit
    from holdfast_hub_protocol.lfs.addresses import Announced

_NAMED: Final = 5  # missing parts that a refusal lists

parts: Final = sa.Table(
    "lfs_parts",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("sha256", sa.String(64), primary_key=True),  # of the whole object
    sa.Column("part_size", sa.BigInteger, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("etag", sa.String(64), nullable=False),  # the part's own SHA-256
    sa.Column("written_at", sa.BigInteger, nullable=False),  # Unix seconds
)


def put_part(visit: RepositoryVisit) -> Response:
    """Take in one part; its ETag stands for it in the completion."""
    asked = announced(visit)
    number = _number(visit, asked)
    offset, size = asked.part(number)
    check_length(visit, size)
    # Not there while it is written over: a crash in between must not leave its old name.
    _forget(visit.hub, asked, number)
    with refusals():
        etag = _partial(visit.hub, asked).write(offset, visit.large_pieces, size)
    row = {**_upload(asked), "number": number, "etag": etag, "written_at": int(time.time())}
    with unless_deleted(), visit.hub.metadata.engine.begin() as connection:
        insert_missing(connection, parts, [row])
    return Response(None, 200, {"ETag": f'"{etag}"'})


def head_part(visit: RepositoryVisit) -> Response:
    """Answer whether a part is here, and its ETag: a client that knows can go on with others."""
    asked = announced(visit)
    etag = _known(visit.hub, asked).get(_number(visit, asked))
    if etag is None:
        raise errors.HubError(404, "This part was not uploaded")
    return Response(None, 200, {"ETag": f'"{etag}"'})


def complete(visit: RepositoryVisit) -> Response:
    """Make the parts one object: 200 once it is on disk and waits for its commit."""
    asked = announced(visit)
    if not asked.part_size:
        raise errors.bad_request("this object is uploaded in one piece")
    named = _named(visit.json(), asked)
    known = _known(visit.hub, asked)
    if not known and visit.hub.staging.staged_here(asked.repository_key, asked.sha256, asked.size):
        return _done(asked)  # completed before; the client did not get the answer
    wrong = [n for n in range(1, asked.parts + 1) if named.get(n) != known.get(n, "missing")]
    if wrong:
        listed = ", ".join(map(str, wrong[:_NAMED])) + (", …" if len(wrong) > _NAMED else "")
        raise errors.bad_request(f"{len(wrong)} parts are missing or have another ETag: {listed}")
    with refusals():
        try:
            _partial(visit.hub, asked).keep(asked.sha256)
        except DigestMismatchError:
            _discard(visit.hub, asked)
            raise
        except FileNotFoundError:  # somebody else completed it while we waited, or gave it up
            if not visit.hub.blobs.has(asked.sha256, asked.size):
                raise errors.bad_request("The parts are gone: upload them again") from None
    stage(visit, asked)
    _discard(visit.hub, asked)
    return _done(asked)


def forget_old_parts(connection: sa.Connection, before: float) -> int:
    """Forget parts written before a time (Unix seconds); their files go as leftovers do."""
    return connection.execute(parts.delete().where(parts.c.written_at < before)).rowcount


def _done(asked: Announced) -> Response:
    return JSONResponse({"oid": asked.sha256, "size": asked.size})


def _number(visit: RepositoryVisit, asked: Announced) -> int:
    number = int(visit.request.path_params["number"])
    if not asked.part_size or not 1 <= number <= asked.parts:
        raise errors.HubError(404, "There is no such part in this upload")
    return number


def _partial(hub: Hub, asked: Announced) -> Partial:
    return hub.blobs.partial(f"{asked.repository_key}-{asked.sha256}-{asked.part_size}")


def _upload(asked: Announced) -> dict[str, Any]:
    return {
        "repository_id": asked.repository_key,
        "sha256": asked.sha256,
        "part_size": asked.part_size,
    }


def _where(asked: Announced) -> sa.ColumnElement[bool]:
    return sa.and_(*(parts.c[key] == value for key, value in _upload(asked).items()))


def _known(hub: Hub, asked: Announced) -> dict[int, str]:
    if not _partial(hub, asked).is_there():
        return {}
    with hub.metadata.engine.connect() as connection:
        rows = connection.execute(sa.select(parts.c.number, parts.c.etag).where(_where(asked)))
        return {row.number: row.etag for row in rows}


def _forget(hub: Hub, asked: Announced, number: int) -> None:
    with hub.metadata.engine.begin() as connection:
        connection.execute(parts.delete().where(_where(asked), parts.c.number == number))


def _discard(hub: Hub, asked: Announced) -> None:
    with hub.metadata.engine.begin() as connection:
        connection.execute(parts.delete().where(_where(asked)))
    _partial(hub, asked).discard()


def _named(document: dict[str, Any], asked: Announced) -> dict[int, str]:
    listed = document.get("parts")
    if document.get("oid") != asked.sha256 or not isinstance(listed, list):
        raise errors.bad_request('a completion needs the "oid" of the upload, and "parts"')
    named: dict[int, str] = {}
    for each in listed:
        number = each.get("partNumber") if isinstance(each, dict) else None
        etag = each.get("etag") if isinstance(each, dict) else None
        if type(number) is not int or not isinstance(etag, str):
            raise errors.bad_request('a part needs "partNumber" and "etag"')
        named[number] = etag.strip('"')
    return named
