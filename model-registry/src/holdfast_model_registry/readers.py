"""Who may read each repository, and its labels: the registry's table beside the protocol's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol import schema
from holdfast_model_registry.access_table import access
from holdfast_model_registry.lineage_labels import effective, inherited_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["NOBODY", "Access", "access", "adopt_old_table", "classify", "put_access", "read_access"]

_OLD_TABLE: Final = "model_access"
_PART: Final = 1000  # keys in a statement: both databases take far more variables


@dataclass(frozen=True)
class Access:
    """The teams that a repository is opened to, and its labels; the empty one: nobody reads it.

    The team in its name needs no opening.
    """

    teams: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What repositories that are alike in this share."""
        text = json.dumps([self.teams, sorted(self.labels.items())])
        return hashlib.sha256(text.encode()).hexdigest()


NOBODY: Final = Access()


def read_access(engine: sa.Engine, repository_keys: Collection[int]) -> dict[int, Access]:
    """Return the access of each repository that has any, with the labels that hold for it."""
    with engine.connect() as connection:
        return _holding(connection, list(repository_keys))


def put_access(
    connection: sa.Connection,
    repository_key: int,
    *,
    teams: Sequence[str] | None,
    labels: Mapping[str, str],
) -> tuple[Access, bool]:
    """Set the reading teams (None: as they are) and labels; return what was set, and if changed."""
    known = given_access(connection, repository_key)
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
    classify(connection, [repository_key])
    return after, True


def classify(connection: sa.Connection, repository_keys: Sequence[int]) -> None:
    """Set what listings know repositories by, after their access or inherited labels changed."""
    table = schema.repositories
    for key, held in _holding(connection, repository_keys).items():
        connection.execute(
            table.update()
            .where(table.c.id == key, table.c.access_class != held.digest)
            .values(access_class=held.digest)
        )


def adopt_old_table(engine: sa.Engine) -> None:
    """Take over what the first release kept in `model_access`, and classify it; once."""
    if _OLD_TABLE not in sa.inspect(engine).get_table_names():
        return
    old = sa.table(_OLD_TABLE, *(sa.column(column.name) for column in access.columns))
    with engine.begin() as connection:
        connection.execute(access.insert().from_select(access.c.keys(), sa.select(old)))
        classify(connection, list(connection.execute(sa.select(access.c.repository_id)).scalars()))
        connection.execute(sa.text(f"DROP TABLE {_OLD_TABLE}"))


def given_access(connection: sa.Connection, repository_key: int) -> Access | None:
    """Return what was set for a repository itself, without what it inherits; None if nothing."""
    row = connection.execute(
        sa.select(access.c.teams, access.c.labels).where(access.c.repository_id == repository_key)
    ).one_or_none()
    return None if row is None else Access(tuple(row.teams), dict(row.labels))


def _holding(connection: sa.Connection, repository_keys: Sequence[int]) -> dict[int, Access]:
    found: dict[int, Access] = {}
    for first in range(0, len(repository_keys), _PART):
        rows = connection.execute(
            sa.select(access, inherited_labels.c.labels.label("inherited"))
            .outerjoin(inherited_labels, inherited_labels.c.repository_id == access.c.repository_id)
            .where(access.c.repository_id.in_(repository_keys[first : first + _PART]))
        )
        for row in rows:
            found[row.repository_id] = Access(
                tuple(row.teams), effective(row.labels, row.inherited)
            )
    return found
