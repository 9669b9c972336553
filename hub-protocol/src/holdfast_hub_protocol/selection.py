"""The page of a listing: its repositories in order, found by indices whatever their number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from holdfast_hub_protocol import leaping, schema
from holdfast_hub_protocol.listings import (
    after_namespace,
    begins_term,
    listings,
    place_of,
    terms,
    terms_within,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_hub_protocol.visibility import Class, Reach

# So few that they are sorted at once; of more, enough are met soon in the order of the listing.
FEW: Final = 1000
MANY_NAMESPACES: Final = 32  # more are not asked one by one
_MOST_AT_ONCE: Final = 5000
_MOST_TERMS: Final = 16
_TABLE: Final = schema.repositories
_IDS: Final = (_TABLE.c.namespace, _TABLE.c.name)

Value = datetime | int | None


@dataclass(frozen=True)
class Mark:
    """Where a page ended: the value that is sorted by (None: the name only), and the name."""

    value: Value
    namespace: str
    name: str


@dataclass(frozen=True)
class Question:
    """What is listed, and in which order."""

    kind: str
    reach: Reach
    limit: int
    bounds: Sequence[str] | None = None  # namespace/name or namespace/* in lower case
    terms: Sequence[str] = ()
    texts: Sequence[str] = ()  # parts of the name
    gated: bool | None = None
    parameters: tuple[int | None, int | None] | None = None  # from, to
    sort: str | None = None  # a column of repositories; None: by name
    descending: bool = False
    after: Mark | None = None


@dataclass(frozen=True)
class _Condition:
    """One filter: what each row must fulfil and, if an index can tell, which rows do."""

    holds: sa.ColumnElement[bool] | None
    keys: sa.Select[Any] | None = None


def select(connection: sa.Connection, question: Question) -> list[tuple[int, Mark]]:
    """Return the keys of at most `limit` repositories, each with its mark."""
    conditions = _conditions(question)
    fewest = _fewest(connection, conditions)
    if fewest is not None and not fewest:
        return []
    holds = [each.holds for each in conditions if each.holds is not None]
    if fewest is not None:
        return _sorted_at_once(connection, question, fewest, holds)
    if question.sort is None and (wanted := _all_terms(question)):
        return _by_terms(connection, question, wanted, holds)
    if question.reach.everything or len(question.reach.namespaces) > MANY_NAMESPACES:
        query = _ordered(question, [question.reach.condition(), *holds, *_past(question)])
    else:
        parts = [
            _ordered(question, [*_in_namespace(name, classes), *holds, *past])
            for name, classes in question.reach.namespaces.items()
            if (past := _past_in_namespace(question, name)) is not None
        ]
        if not parts:
            return []
        query = _merged(question, parts)
    return [_marked(question, row) for row in connection.execute(query)]


def _sorted_at_once(
    connection: sa.Connection,
    question: Question,
    keys: Sequence[int],
    holds: Sequence[sa.ColumnElement[bool]],
) -> list[tuple[int, Mark]]:
    """Return what `select` does from among few rows.

    Neither sorted nor told by kind in SQL: SQLite would take an index for either, and read all
    of it.
    """
    columns = (_TABLE.c.id, _TABLE.c.kind, _value(question).label("value"), *_IDS)
    where = (question.reach.condition(), *holds, *_past(question))
    rows = connection.execute(sa.select(*columns).where(_TABLE.c.id.in_(keys), *where))
    found = [_marked(question, row) for row in rows if row.kind == question.kind]
    if question.sort is None:
        found.sort(key=lambda each: (each[1].namespace, each[1].name), reverse=question.descending)
    else:
        found.sort(
            key=lambda each: (each[1].value, each[1].namespace, each[1].name),
            reverse=question.descending,
        )
    return found[: question.limit]


def _all_terms(question: Question) -> list[str]:
    """Return terms that everything wanted has; enough to find it by."""
    found = [*question.terms, *(term for text in question.texts for term in terms_within(text))]
    return list(dict.fromkeys(found))[:_MOST_TERMS]


def _by_terms(
    connection: sa.Connection,
    question: Question,
    wanted: Sequence[str],
    holds: Sequence[sa.ColumnElement[bool]],
) -> list[tuple[int, Mark]]:
    """Return what `select` does by name, from those that have the terms, in their order."""
    found: list[tuple[int, Mark]] = []
    for begin, end in _ranges(question):
        start, batch = begin, question.limit
        while True:
            rows = leaping.first_with_all(connection, question.kind, wanted, (start, end), batch)
            keys = [row.key for row in rows]
            found += _sorted_at_once(connection, question, keys, holds) if keys else []
            if len(found) >= question.limit:
                return found[: question.limit]
            if len(rows) < batch:
                break
            start = leaping.past(rows[-1].place)
            batch = min(2 * batch, _MOST_AT_ONCE)  # few of these are wanted
    return found


def _ranges(question: Question) -> list[tuple[str, str]]:
    """Return the places to look through, in order: whole namespaces, or all of them as one."""
    mark, names = question.after, question.reach.namespaces
    start = "" if mark is None else leaping.past(place_of(mark.namespace, mark.name))
    if question.reach.everything or len(names) > MANY_NAMESPACES:
        return [(start, leaping.END)]
    ranges = [(max(place_of(name), start), after_namespace(name)) for name in sorted(names)]
    return [(first, end) for first, end in ranges if first < end]


def _marked(question: Question, row: Any) -> tuple[int, Mark]:  # noqa: ANN401 - a row
    return row.id, Mark(row.value if question.sort else None, row.namespace, row.name)


def _value(question: Question) -> sa.ColumnElement[Any]:
    return sa.null() if question.sort is None else _TABLE.c[question.sort]


def _conditions(question: Question) -> list[_Condition]:
    found = [_term(question.kind, term) for term in question.terms]
    for text in question.texts:
        # Each part of the text narrows; that it is all there in a row, only the name tells.
        found.append(_Condition(_TABLE.c.folded.contains(text.lower(), autoescape=True)))
        grams = [terms.c.term == term for term in terms_within(text)] or [begins_term(text)]
        found += [_Condition(None, _keys_of_terms(question.kind, each)) for each in grams]
    if question.bounds is not None:
        bound = sa.or_(*map(_within, question.bounds)) if question.bounds else sa.false()
        found.append(_Condition(bound, _keys(question.kind, bound)))
    if question.gated is not None:
        asked_for = _TABLE.c.gated.in_(("auto", "manual"))
        keys = _keys(question.kind, asked_for) if question.gated else None
        found.append(_Condition(asked_for if question.gated else _TABLE.c.gated == "", keys))
    if question.parameters is not None:
        least, most = question.parameters
        keys = sa.select(listings.c.repository_id).where(listings.c.parameters.is_not(None))
        if least is not None:
            keys = keys.where(listings.c.parameters >= least)
        if most is not None:
            keys = keys.where(listings.c.parameters <= most)
        here = keys.where(listings.c.repository_id == _TABLE.c.id).correlate(_TABLE)
        found.append(_Condition(here.exists(), keys))
    return found


def _term(kind: str, term: str) -> _Condition:
    keys = _keys_of_terms(kind, terms.c.term == term)
    here = keys.where(terms.c.repository_id == _TABLE.c.id).correlate(_TABLE)
    return _Condition(here.exists(), keys)


def _keys_of_terms(kind: str, holds: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(terms.c.repository_id).where(terms.c.kind == kind, holds)


def _keys(kind: str, holds: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(_TABLE.c.id).where(_TABLE.c.kind == kind, holds)


def _within(bound: str) -> sa.ColumnElement[bool]:
    if bound.endswith("/*"):
        # '0' is the character after '/': a range that the index answers.
        return sa.and_(_TABLE.c.folded >= bound[:-1], _TABLE.c.folded < f"{bound[:-2]}0")
    return _TABLE.c.folded == bound


def _fewest(connection: sa.Connection, conditions: Sequence[_Condition]) -> Sequence[int] | None:
    """Return the rows that the narrowest filter leaves; None if those are more than a few."""
    least: sa.Select[Any] | None = None
    count = FEW + 1
    for condition in conditions:
        if condition.keys is None:
            continue
        bounded = condition.keys.limit(count).subquery()
        found = connection.execute(sa.select(sa.func.count()).select_from(bounded)).scalar_one()
        if found == 0:
            return []
        if found < count:
            least, count = condition.keys, found
    return None if least is None else list(connection.execute(least).scalars())


def _ordered(question: Question, where: Sequence[sa.ColumnElement[bool]]) -> sa.Select[Any]:
    columns = [*_IDS] if question.sort is None else [_TABLE.c[question.sort], *_IDS]
    order = [column.desc() if question.descending else column.asc() for column in columns]
    return (
        sa.select(_TABLE.c.id, _value(question).label("value"), *_IDS)
        .where(_TABLE.c.kind == question.kind, *where)
        .order_by(*order)
        .limit(question.limit)
    )


def _merged(question: Question, parts: Sequence[sa.Select[Any]]) -> sa.Select[Any]:
    """Return the first of what each part begins with."""
    if len(parts) == 1:
        return parts[0]
    union = sa.union_all(*(sa.select(part.subquery()) for part in parts)).subquery()
    columns = [union.c.namespace, union.c.name]
    if question.sort is not None:
        columns.insert(0, union.c.value)
    order = [column.desc() if question.descending else column.asc() for column in columns]
    return sa.select(union).order_by(*order).limit(question.limit)


def _in_namespace(namespace: str, classes: Sequence[Class] | None) -> list[sa.ColumnElement[bool]]:
    where = [_TABLE.c.namespace == namespace]
    if classes is not None:
        columns = sa.tuple_(_TABLE.c.private, _TABLE.c.access_class)
        where.append(columns.in_([(each.private, each.name) for each in classes]))
    return where


def _past(question: Question) -> list[sa.ColumnElement[bool]]:
    """Return what comes after the mark, as one range of the index."""
    mark = question.after
    if mark is None:
        return []
    name = (_literal(_TABLE.c.namespace, mark.namespace), _literal(_TABLE.c.name, mark.name))
    if question.sort is None:
        return [_beyond(question, sa.tuple_(*_IDS), sa.tuple_(*name))]
    column = _TABLE.c[question.sort]
    here = sa.tuple_(column, *_IDS)
    return [_beyond(question, here, sa.tuple_(_literal(column, mark.value), *name))]


def _past_in_namespace(question: Question, namespace: str) -> list[sa.ColumnElement[bool]] | None:
    """Return the same within one namespace; None if all of it came before."""
    mark = question.after
    if mark is None:
        return []
    before = (namespace > mark.namespace) if question.descending else (namespace < mark.namespace)
    same = namespace == mark.namespace
    name = _literal(_TABLE.c.name, mark.name)
    if question.sort is None:
        if before:
            return None
        return [_beyond(question, _TABLE.c.name, name)] if same else []
    column = _TABLE.c[question.sort]
    value = _literal(column, mark.value)
    if same:
        here = sa.tuple_(column, _TABLE.c.name)
        return [_beyond(question, here, sa.tuple_(value, name))]
    if before:
        return [_beyond(question, column, value)]
    return [column <= value if question.descending else column >= value]


def _beyond(question: Question, here: Any, there: Any) -> sa.ColumnElement[bool]:  # noqa: ANN401 - columns or tuples of them
    beyond: sa.ColumnElement[bool] = here < there if question.descending else here > there
    return beyond


def _literal(column: sa.Column[Any], value: Value | str) -> sa.BindParameter[Any]:
    return sa.literal(value, column.type)
