"""The tables of reviews: what was seen, what state a revision is in, who approved, what happened.

In the protocol's metadata, so that a commit and its state are written in one transaction.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema

# What looking at a content came to; `claim` is what its name promised.
observations: Final = sa.Table(
    "model_observations",
    schema.metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("claim", sa.String(32), primary_key=True),
    sa.Column("observation", schema.Document, nullable=False),
)

reviews: Final = sa.Table(
    "model_reviews",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("commit_oid", sa.String(40), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("scan", sa.String(8), nullable=False),  # waiting or done
    # Of every path and content, as it was approved; '' before.
    sa.Column("digest", sa.String(71), nullable=False),
    sa.Column("uploader", sa.Text, nullable=False),
    sa.Column("findings", schema.Document, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),  # whoever quarantined or rejected it said this
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("model_reviews_by_state", "state", "updated_at"),
    sa.Index("model_reviews_by_scan", "scan", "created_at"),
)

_of_a_review: Final = (
    ["repository_id", "commit_oid"],
    [
        "model_reviews.repository_id",
        "model_reviews.commit_oid",
    ],
)

approvals: Final = sa.Table(
    "model_approvals",
    schema.metadata,
    sa.Column("repository_id", sa.Integer, primary_key=True),
    sa.Column("commit_oid", sa.String(40), primary_key=True),
    sa.Column("approver", schema.Name, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),  # user, by token; local, as operator
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(*_of_a_review, ondelete="CASCADE"),
)

transitions: Final = sa.Table(
    "model_transitions",
    schema.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository_id", sa.Integer, nullable=False),
    sa.Column("commit_oid", sa.String(40), nullable=False),
    sa.Column("before", sa.String(16), nullable=False),
    sa.Column("after", sa.String(16), nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_kind", sa.String(16), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(*_of_a_review, ondelete="CASCADE"),
    sa.Index("model_transitions_by_review", "repository_id", "commit_oid", "id"),
)

# Models that were brought in for the site and may be taken out again; see withdraw.py.
placed: Final = sa.Table(
    "placed_models",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
)
