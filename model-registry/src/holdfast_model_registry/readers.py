"""Who may read each model, and its labels: the registry's own table beside the protocol's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# In the protocol's metadata, so that both are written in one transaction.
access: Final = sa.Table(
    "model_access",
    schema.metadata,
    sa.Column("repository_id", sa.ForeignKey(schema.repositories.c.id), primary_key=True),
    sa.Column("teams", schema.Document, nullable=False),
    sa.Column("labels", schema.Document, nullable=False),
)


@dataclass(frozen=True)
class Access:
    """Who may read a model; the empty one is what a model has that was told nothing: nobody."""

    teams: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


NOBODY: Final = Access()


def read_access(engine: sa.Engine, repository_keys: Sequence[int]) -> dict[int, Access]:
    """Return the access of each repository that has any."""
    with engine.connect() as connection:
        return _read(connection, repository_keys)


def put_access(
    connection: sa.Connection,
    repository_key: int,
    *,
    teams: Sequence[str] | None,
    labels: Mapping[str, str],
) -> tuple[Access, bool]:
    """Set the reading teams (None: as they are) and labels; return what holds, and if changed."""
    known = _read(connection, [repository_key]).get(repository_key)
    before = known or NOBODY
    after = Access(
        teams=before.teams if teams is None else tuple(sorted(set(teams))),
        labels={**before.labels, **labels},
    )
    if known == after:
        return after, False
    values = {"teams": list(after.teams), "labels": dict(after.labels)}
    if known is None:
        connection.execute(access.insert().values(repository_id=repository_key, **values))
    else:
        connection.execute(
            access.update().where(access.c.repository_id == repository_key).values(**values)
        )
    return after, True


def _read(connection: sa.Connection, repository_keys: Sequence[int]) -> dict[int, Access]:
    rows = connection.execute(
        sa.select(access.c.repository_id, access.c.teams, access.c.labels).where(
            access.c.repository_id.in_(repository_keys)
        )
    )
    return {row.repository_id: Access(tuple(row.teams), dict(row.labels)) for row in rows}
