"""Reading and writing discussions; writers are handed a `writing.transaction`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import sqlalchemy as sa

from holdfast_hub_protocol.discussions import tables
from holdfast_hub_protocol.discussions.records import Discussion, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_hub_protocol.discussions.records import Status
    from holdfast_hub_protocol.records import Repository

_TABLE: Final = tables.discussions
_EVENTS: Final = tables.events
# As clients ask: a draft is not closed yet, and what is merged is.
_STATUSES: Final = {"open": ("open", "draft"), "closed": ("closed", "merged")}


def add(  # noqa: PLR0913 - a discussion is all of this
    connection: sa.Connection,
    repository: Repository,
    *,
    title: str,
    author: str,
    status: Status,
    base_ref: str | None = None,
    base_oid: str | None = None,
) -> Discussion:
    """Open a discussion under the next free number."""
    last = connection.execute(
        sa.select(sa.func.max(_TABLE.c.num)).where(_TABLE.c.repository_id == repository.key)
    ).scalar()
    num, date = (last or 0) + 1, datetime.now(UTC)
    key = connection.execute(
        _TABLE.insert().values(
            repository_id=repository.key,
            num=num,
            title=title,
            status=status,
            author=author,
            created_at=date,
            base_ref=base_ref,
            base_oid=base_oid,
        )
    ).inserted_primary_key
    if key is None:  # the table has one
        raise AssertionError(_TABLE.name)
    return Discussion(int(key[0]), num, title, status, author, date, base_ref, base_oid)


def remove(connection: sa.Connection, discussion: Discussion) -> None:
    """Take back what was just opened; its number will be given again."""
    connection.execute(_EVENTS.delete().where(_EVENTS.c.discussion_id == discussion.key))
    connection.execute(_TABLE.delete().where(_TABLE.c.id == discussion.key))


def change(connection: sa.Connection, discussion: Discussion, **values: str) -> None:
    """Set the title, the status or the commit it was merged by."""
    connection.execute(_TABLE.update().where(_TABLE.c.id == discussion.key).values(**values))


def add_event(
    connection: sa.Connection, discussion: Discussion, kind: str, author: str, data: dict[str, Any]
) -> Event:
    """Append an event and return it."""
    event = Event(secrets.token_hex(12), kind, author, datetime.now(UTC), data)
    connection.execute(
        _EVENTS.insert().values(
            key=event.key,
            discussion_id=discussion.key,
            type=event.type,
            author=event.author,
            created_at=event.created_at,
            data=event.data,
        )
    )
    return event


def change_event(connection: sa.Connection, event: Event, data: dict[str, Any]) -> Event:
    """Give an event other data and return it as it is now."""
    connection.execute(_EVENTS.update().where(_EVENTS.c.key == event.key).values(data=data))
    return Event(event.key, event.type, event.author, event.created_at, data)


def find(connection: sa.Connection, repository: Repository, num: int) -> Discussion | None:
    """Return the discussion of this number."""
    query = sa.select(*_TABLE.c, _comment_count()).where(
        _TABLE.c.repository_id == repository.key, _TABLE.c.num == num
    )
    rows = connection.execute(query).all()
    return _discussion(rows[0]) if rows else None


def events(connection: sa.Connection, discussion: Discussion) -> list[Event]:
    """Return what happened in a discussion, oldest first."""
    rows = connection.execute(
        sa.select(_EVENTS).where(_EVENTS.c.discussion_id == discussion.key).order_by(_EVENTS.c.id)
    )
    return [_event(row) for row in rows]


def find_event(connection: sa.Connection, discussion: Discussion, key: str) -> Event | None:
    """Return the event that clients know by this id."""
    row = connection.execute(
        sa.select(_EVENTS).where(
            _EVENTS.c.discussion_id == discussion.key, _EVENTS.c.key == key.lower()
        )
    ).one_or_none()
    return None if row is None else _event(row)


def listing(  # noqa: PLR0913 - the filters that the protocol has
    connection: sa.Connection,
    repository: Repository,
    *,
    kind: Literal["discussion", "pull_request", "all"],
    status: Literal["open", "closed", "all"],
    author: str | None,
    start: int,
    limit: int,
) -> tuple[int, Sequence[Discussion]]:
    """Return how many there are, and those from `start` on, newest first."""
    wanted = [_TABLE.c.repository_id == repository.key]
    if kind != "all":
        wanted.append(_TABLE.c.base_ref.is_not(None) == (kind == "pull_request"))
    if status != "all":
        wanted.append(_TABLE.c.status.in_(_STATUSES[status]))
    if author is not None:
        wanted.append(_TABLE.c.author == author)
    count = connection.execute(sa.select(sa.func.count()).select_from(_TABLE).where(*wanted))
    rows = connection.execute(
        sa.select(*_TABLE.c, _comment_count())
        .where(*wanted)
        .order_by(_TABLE.c.num.desc())
        .offset(start)
        .limit(limit)
    )
    return count.scalar_one(), [_discussion(row) for row in rows]


def count_closed(connection: sa.Connection, repository: Repository) -> int:
    """Return how many discussions of a repository are closed or merged."""
    query = sa.select(sa.func.count()).where(
        _TABLE.c.repository_id == repository.key, _TABLE.c.status.in_(_STATUSES["closed"])
    )
    return connection.execute(query).scalar_one()


def _comment_count() -> sa.Label[int]:
    query = sa.select(sa.func.count()).where(
        _EVENTS.c.discussion_id == _TABLE.c.id, _EVENTS.c.type == "comment"
    )
    return query.scalar_subquery().label("comments")


def _discussion(row: Any) -> Discussion:  # noqa: ANN401 - a row of many columns
    return Discussion(
        key=row.id,
        num=row.num,
        title=row.title,
        status=cast("Status", row.status),
        author=row.author,
        created_at=_utc(row.created_at),
        base_ref=row.base_ref,
        base_oid=row.base_oid,
        merge_oid=row.merge_oid,
        comments=row.comments,
    )


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.key, row.type, row.author, _utc(row.created_at), row.data)


def _utc(moment: datetime) -> datetime:
    # SQLite keeps no offset; everything is written in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
