"""Which repositories a listing may show, decided once for each class of them, not for each."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from holdfast_hub_protocol import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from holdfast_hub_protocol.access import Caller
    from holdfast_hub_protocol.endpoints import Hub

_TABLE = schema.repositories


@dataclass(frozen=True)
class Class:
    """Repositories that the same callers see; without a name, each is decided on by itself."""

    private: bool
    name: str


@dataclass(frozen=True)
class Reach:
    """What a caller may be shown; what unnamed classes hold must be asked for one by one."""

    everything: bool
    # By namespace; None where all of its classes may be shown.
    namespaces: Mapping[str, Sequence[Class] | None]

    def within(self, namespaces: Iterable[str]) -> Reach:
        """Return the reach in some namespaces, in upper or lower case."""
        folded = {namespace.lower() for namespace in namespaces}
        found = {
            name: classes for name, classes in self.namespaces.items() if name.lower() in folded
        }
        return Reach(everything=False, namespaces=found)

    def condition(self) -> sa.ColumnElement[bool]:
        """Return what rows of `repositories` must fulfil."""
        if self.everything:
            return sa.true()
        whole = [name for name, classes in self.namespaces.items() if classes is None]
        parts = [
            (name, each.private, each.name)
            for name, classes in self.namespaces.items()
            for each in classes or ()
        ]
        columns = sa.tuple_(_TABLE.c.namespace, _TABLE.c.private, _TABLE.c.access_class)
        either = [
            *([_TABLE.c.namespace.in_(whole)] if whole else []),
            *([columns.in_(parts)] if parts else []),
        ]
        return sa.or_(sa.false(), *either)


def reach(hub: Hub, connection: sa.Connection, caller: Caller, kind: str) -> Reach:
    """Ask the policy about one repository of each class that there is."""
    named = {
        row.id: row.access_class
        for row in connection.execute(
            sa.select(_TABLE.c.id, _TABLE.c.access_class).where(_TABLE.c.id.in_(_samples(kind)))
        )
    }
    samples = hub.metadata.repositories_by_key(named)
    bounds = hub.authorizer.bounds(caller)
    shown: dict[str, list[Class]] = {}
    total: dict[str, int] = {}
    ask = [each for each in samples if named[each.key] and bounds is None]
    readable = {each.key for each in hub.authorizer.readable(caller, ask)}
    for each in samples:
        namespace = each.id.namespace
        total[namespace] = total.get(namespace, 0) + 1
        # A token that is bound to some repositories may not see the sample and see others.
        if bounds is not None or not named[each.key] or each.key in readable:
            shown.setdefault(namespace, []).append(Class(each.private, named[each.key]))
    return Reach(
        everything=sum(total.values()) == sum(map(len, shown.values())),
        namespaces={
            namespace: None if len(classes) == total[namespace] else classes
            for namespace, classes in shown.items()
        },
    )


@functools.cache  # putting it together takes longer than asking it
def _samples(kind: str) -> sa.Select[int]:
    """Return a query of one repository of each class: the index is read once for each."""
    columns = ("namespace", "private", "access_class")
    samples = (
        sa.select(_first(_TABLE, kind, columns, ()).label("id")).cte("samples", recursive=True)
    )  # fmt: skip
    last, following = _TABLE.alias("last"), _TABLE.alias("following")
    # The next one differs in the last of the columns, or in the one before, and so on: written
    # apart, because SQLite compares no more than the first text of a row by an index.
    following_id = sa.func.coalesce(
        *(
            _first(
                following,
                kind,
                columns[at:],
                [
                    *(following.c[name] == last.c[name] for name in columns[:at]),
                    following.c[columns[at]] > last.c[columns[at]],
                ],
            )
            for at in reversed(range(len(columns)))
        )
    )
    samples = samples.union_all(
        sa.select(following_id.label("id")).select_from(
            samples.join(last, last.c.id == samples.c.id)
        )
    )
    return sa.select(samples.c.id).where(samples.c.id.is_not(None))


def _first(
    table: sa.FromClause,
    kind: str,
    order: Sequence[str],
    where: Sequence[sa.ColumnElement[bool]],
) -> sa.ScalarSelect[int]:
    query: sa.Select[int] = (
        sa.select(table.c.id)
        .where(table.c.kind == kind, *where)
        .order_by(*(table.c[name] for name in order))
        .limit(1)
    )
    return query.correlate_except(table).scalar_subquery()
