"""The first repositories that have all of several terms, by name, found by leaping.

Each term's rows stand in the order of names. From a place, the next row of one term is sought, from
there the next of another, and so on in turn: where all of them agree, a repository has every term.
What none of them has in between is never read, however many repositories there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from holdfast_hub_protocol.listings import terms

if TYPE_CHECKING:
    from collections.abc import Sequence

END: Final = "~"  # sorts after every place
_PAST: Final = " "  # sorts before every character of a name


@dataclass(frozen=True)
class Found:
    """A repository, and where it stands."""

    key: int
    place: str


def past(place: str) -> str:
    """Return what sorts after this place and not after the next."""
    return place + _PAST


def first_with_all(
    connection: sa.Connection,
    kind: str,
    wanted: Sequence[str],
    places: tuple[str, str],
    limit: int,
) -> list[Found]:
    """Return at most so many that have all terms, from one place to before another, in order."""
    found = connection.execute(_leaps(kind, wanted, places, limit)).scalars().all()
    rows = connection.execute(
        sa.select(terms.c.repository_id, terms.c.place).where(
            terms.c.kind == kind, terms.c.term == wanted[0], terms.c.place.in_(found)
        )
    )
    return sorted((Found(*row) for row in rows), key=lambda each: each.place)


def _leaps(
    kind: str, wanted: Sequence[str], places: tuple[str, str], limit: int
) -> sa.Select[tuple[str]]:
    """Return a query of the places where all agree.

    Each row is one leap: where it came from and to, whose turn is next, how many agreed on the
    place before, and how many places were met before.
    """
    start, end = places
    mine = terms.c.kind == kind
    first = (
        sa.select(terms.c.place, terms.c.term)  # a term is no place: nobody agreed yet
        .where(mine, terms.c.term == wanted[0], terms.c.place >= start)
        .order_by(terms.c.place)
        .limit(1)
        .subquery()
    )
    none = sa.literal(0, sa.Integer)
    leap = sa.select(
        first.c.place,
        first.c.term.label("before"),
        sa.literal(1 % len(wanted), sa.Integer).label("turn"),
        none.label("agreed"),
        none.label("met"),
    ).cte("leap", recursive=True)
    agreed = sa.case((leap.c.place == leap.c.before, leap.c.agreed + 1), else_=1)
    agrees = agreed == len(wanted)
    met = leap.c.met + sa.case((agrees, 1), else_=0)
    term = sa.case(*((leap.c.turn == turn, each) for turn, each in enumerate(wanted)))
    following = (
        sa.select(terms.c.place)
        .where(
            mine,
            terms.c.term == term,
            terms.c.place >= leap.c.place + sa.case((agrees, _PAST), else_=""),
        )
        .order_by(terms.c.place)
        .limit(1)
        .correlate(leap)
        .scalar_subquery()
    )
    turn = (leap.c.turn + 1) % len(wanted)
    leap = leap.union_all(
        sa.select(following, leap.c.place, turn, agreed, met).where(leap.c.place < end, met < limit)
    )
    agreed = sa.case((leap.c.place == leap.c.before, leap.c.agreed + 1), else_=1)
    return sa.select(leap.c.place).where(
        agreed == len(wanted), leap.c.place < end, leap.c.met < limit
    )
