"""How often repositories are downloaded and liked: the tables, and the numbers that are shown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema

DAYS: Final = 30  # of downloads that are shown
TRENDING_DAYS: Final = 7
LIKE_WEIGHT: Final = 5  # downloads that a like counts for in what trends

likes: Final = sa.Table(
    "likes",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("liker", schema.Name, primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("likes_of_liker", "liker", "created_at"),
)

downloads: Final = sa.Table(
    "downloads_of_day",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)


def today() -> date:
    """Return the day, UTC."""
    return datetime.now(UTC).date()


def decode_moment(text: str) -> datetime:
    """Read a moment out of a cursor; ValueError for one that no database can hold."""
    moment = datetime.fromisoformat(text)
    if not 1970 <= moment.year < 9999:
        raise ValueError("not a moment of this registry")
    # SQLite keeps no offset; everything is written in UTC.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def downloaded(days: int | None = DAYS) -> sa.ColumnElement[int]:
    """Return the downloads of the last days (None: of all), inside a statement on repositories."""
    query = sa.select(sa.func.coalesce(sa.func.sum(downloads.c.count), 0)).where(
        downloads.c.repository_id == schema.repositories.c.id
    )
    if days is not None:
        query = query.where(downloads.c.day > today() - timedelta(days=days))
    return sa.cast(query.scalar_subquery(), sa.BigInteger)


def trending() -> sa.ColumnElement[int]:
    """Return what a repository trends by, inside a statement on repositories."""
    since = datetime.now(UTC) - timedelta(days=TRENDING_DAYS)
    liked = (
        sa.select(sa.func.count())
        .where(likes.c.repository_id == schema.repositories.c.id, likes.c.created_at > since)
        .scalar_subquery()
    )
    return downloaded(TRENDING_DAYS) + LIKE_WEIGHT * liked
