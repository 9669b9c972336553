"""The table of who may read what; in the protocol's metadata: both are written at once."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema

access: Final = sa.Table(
    "repository_access",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("teams", schema.Document, nullable=False),
    sa.Column("labels", schema.Document, nullable=False),
)
