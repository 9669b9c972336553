"""The tables of discussions; a repository that is deleted takes its own along."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema

discussions: Final = sa.Table(
    "discussions",
    schema.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "repository_id", sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"), nullable=False
    ),
    sa.Column("num", sa.Integer, nullable=False),  # from 1, one sequence for both kinds
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),  # draft, open, closed or merged
    sa.Column("author", schema.Name, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    # Of pull requests: where the changes are to go, and the commit they began from.
    sa.Column("base_ref", schema.Name),  # null: a discussion
    sa.Column("base_oid", sa.String(40)),
    sa.Column("merge_oid", sa.String(40)),  # null: not merged
    sa.UniqueConstraint("repository_id", "num"),
)

events: Final = sa.Table(
    "discussion_events",
    schema.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(24), nullable=False, unique=True),  # what clients call its id
    sa.Column(
        "discussion_id",
        sa.ForeignKey(discussions.c.id, ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("type", sa.String(16), nullable=False),  # comment, status-change or title-change
    sa.Column("author", schema.Name, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("data", schema.Document, nullable=False),
)
