"""Labels and their order: what is derived carries the strictest labels of what it came from.

Classifications have the order of the profile `label/classification.yml`. A jurisdiction is stricter
than another whose permitted places (`permitted_jurisdictions` of its profile) contain all of its
own. Where neither of two labels is the stricter (two jurisdictions of different places, two words
that no profile knows) they contradict each other: no label holds, and what has no label is denied.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
import yaml

import holdfast_profiles
from holdfast_hub_protocol import schema
from holdfast_model_registry.access_table import access

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LABELS: Final = ("jurisdiction", "classification")
CONTRADICTION: Final = ""  # no label: Cedar denies what has none

# What a repository inherits from the sources that are known here; kept by lineage.py.
inherited_labels: Final = sa.Table(
    "inherited_labels",
    schema.metadata,
    sa.Column(
        "repository_id",
        sa.ForeignKey(schema.repositories.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("labels", schema.Document, nullable=False),
)


def labels_of(
    connection: sa.Connection, repository_keys: Collection[int]
) -> dict[int, dict[str, str]]:
    """Return the labels that hold for each repository: its own and what it inherits, strictest.

    A repository that was given no label of a kind has none of that kind, whatever it inherits; one
    whose labels contradict each other has the empty one. Both are denied by the policies.
    """
    declared = connection.execute(
        sa.select(access.c.repository_id, access.c.labels, inherited_labels.c.labels.label("from_"))
        .outerjoin(inherited_labels, inherited_labels.c.repository_id == access.c.repository_id)
        .where(access.c.repository_id.in_(repository_keys))
    )
    return {row.repository_id: effective(row.labels, row.from_) for row in declared}


def effective(own: Mapping[str, str], inherited: Mapping[str, str] | None) -> dict[str, str]:
    """Return the labels that hold where a repository has these of its own and inherits those."""
    if not inherited:
        return dict(own)
    return {
        kind: value if kind not in inherited else strictest(kind, (value, inherited[kind]))
        for kind, value in own.items()
    }


def strictest(kind: str, values: Collection[str]) -> str:
    """Return the strictest of some labels of a kind, the empty one if they contradict each other.

    A source without a label is the empty label: what comes of it has none either.
    """
    chosen: str | None = None
    for value in values:
        if chosen is None or chosen == value:
            chosen = value
        elif CONTRADICTION in {chosen, value}:
            return CONTRADICTION
        elif _at_least_as_strict(kind, value, chosen):
            chosen = value
        elif not _at_least_as_strict(kind, chosen, value):
            return CONTRADICTION
    return CONTRADICTION if chosen is None else chosen


def permitted_places(jurisdiction: str) -> frozenset[str]:
    """Return the jurisdictions in which something labelled so may be; itself, where none says."""
    if jurisdiction not in holdfast_profiles.names("jurisdiction"):
        return frozenset({jurisdiction})
    stated = _profile("jurisdiction", jurisdiction).get("permitted_jurisdictions")
    return frozenset(stated or [jurisdiction])


def at_most(classification: str, limit: str) -> bool:
    """Tell whether a classification is not above a limit; a word that no profile knows is."""
    order = _order()
    return classification in order and (
        limit in order and order.index(classification) <= order.index(limit)
    )


def known_classification(word: str) -> bool:
    """Tell whether the profiles know a classification."""
    return word in _order()


def may_be_in(labels: Mapping[str, str], place: str, limit: str) -> str:
    """Return why something may not go to a place with a limit of classification; '' if it may."""
    missing = [kind for kind in LABELS if not labels.get(kind)]
    if missing:
        return f"it has no {' and no '.join(missing)}"
    jurisdiction, classification = labels["jurisdiction"], labels["classification"]
    if place not in permitted_places(jurisdiction):
        return f"its jurisdiction is {jurisdiction}, which does not permit {place}"
    if not at_most(classification, limit):
        return f"its classification is {classification}, above {limit}"
    return ""


def _at_least_as_strict(kind: str, one: str, other: str) -> bool:
    if kind == "jurisdiction":
        return permitted_places(one) <= permitted_places(other)
    order = _order()
    if one not in order:
        return other in order
    return other in order and order.index(one) >= order.index(other)


@cache
def _order() -> tuple[str, ...]:
    return tuple(_profile("label", "classification")["order"])


@cache
def _profile(kind: str, name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(holdfast_profiles.read(kind, name))
    return document
