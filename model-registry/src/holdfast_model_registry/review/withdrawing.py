"""Models that were brought in for a site, and are no longer in its site file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_hub_protocol.identifiers import RepositoryId
from holdfast_model_registry.review.ledger import note_withdrawal
from holdfast_model_registry.review.tables import placed

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast_model_registry.review.states import Actor
    from holdfast_trust.ledger import Ledger

WITHDRAWN: Final = "it was taken out of the site"


def place(connection: sa.Connection, repository: int) -> bool:
    """Note that a model is in the site's file; return whether it was withdrawn before."""
    known = sa.select(placed.c.repository_id).where(placed.c.repository_id == repository)
    if connection.execute(known).scalar_one_or_none() is None:
        connection.execute(placed.insert().values(repository_id=repository))
    table = schema.repositories
    restored = connection.execute(
        table.update()
        .where(table.c.id == repository, table.c.disabled_reason == WITHDRAWN)
        .values(disabled_reason="")
    )
    return restored.rowcount > 0


def withdraw(
    engine: sa.Engine, ledger: Ledger, actor: Actor, keep: Collection[RepositoryId]
) -> list[RepositoryId]:
    """Let nobody fetch the placed models that are not to be kept; return which were withdrawn now.

    Nothing is deleted: brought in again, they are as they were. What people pushed is let be.
    """
    table = schema.repositories
    with engine.begin() as connection:
        rows = connection.execute(
            sa.select(table.c.id, table.c.namespace, table.c.name)
            .join(placed, placed.c.repository_id == table.c.id)
            .where(table.c.disabled_reason == "")
            .order_by(table.c.namespace, table.c.name)
        ).all()
        gone = {
            row.id: name
            for row in rows
            if (name := RepositoryId("model", row.namespace, row.name)) not in keep
        }
        if gone:
            connection.execute(
                table.update().where(table.c.id.in_(gone)).values(disabled_reason=WITHDRAWN)
            )
            for name in gone.values():
                note_withdrawal(ledger, actor, str(name))
    return list(gone.values())
