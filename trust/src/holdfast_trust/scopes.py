"""What a token may at most do: its rights are these and its owner's, whichever is less."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from holdfast_trust.errors import TrustError
from holdfast_trust.principals import ROLES, checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Verb = Literal["read", "contribute", "write", "admin", "infer"]
VERBS: Final[tuple[Verb, ...]] = (*ROLES, "infer")
"""The rights that a token can carry: the roles', each with those before it, and `infer` alone."""

_PART: Final = r"[a-z0-9_](?:[a-z0-9_.-]{0,94}[a-z0-9_])?"
_REPOSITORY: Final = re.compile(rf"{_PART}/(?:{_PART}|\*)")
_KEYS: Final = ("verbs", "teams", "repositories")


@dataclass(frozen=True, slots=True)
class Scope:
    """A token's bounds; None is no bound.

    `verbs` are as given: `write` stands for what is below it too (`included`). `teams` are the
    memberships that count, the owner's own name standing for their personal namespace.
    `repositories` are folded ids, `org/name` or `org/*` for all of a namespace.
    """

    verbs: tuple[str, ...] | None = None
    teams: tuple[str, ...] | None = None
    repositories: tuple[str, ...] | None = None

    @property
    def included(self) -> tuple[str, ...]:
        """The verbs with those that they stand for."""
        if self.verbs is None:
            return VERBS
        roles = [role for role in ROLES if role in self.verbs]
        below = ROLES[: ROLES.index(roles[-1]) + 1] if roles else ()
        return (*below, "infer") if "infer" in self.verbs else below

    def counts(self, team: str) -> bool:
        """Tell whether the owner's membership of a team counts."""
        return self.teams is None or team in self.teams

    def narrowed(self, other: Scope) -> Scope:
        """Return what is within both."""
        verbs: tuple[str, ...] | None = None
        if self.verbs is not None or other.verbs is not None:
            verbs = tuple(verb for verb in self.included if verb in other.included)
        return Scope(
            verbs,
            _both(self.teams, other.teams, lambda one, two: one == two),
            _both(self.repositories, other.repositories, _within),
        )

    def as_dict(self) -> dict[str, list[str]]:
        """Return the bounds that there are, for JSON."""
        given = {key: getattr(self, key) for key in _KEYS}
        return {key: list(values) for key, values in given.items() if values is not None}

    def as_text(self) -> str | None:
        """Return what the database keeps: None for no bounds."""
        return json.dumps(self.as_dict(), sort_keys=True) if self != EVERYTHING else None

    def __str__(self) -> str:
        if self == EVERYTHING:
            return "all"
        return "; ".join(f"{key} {','.join(values)}" for key, values in self.as_dict().items())


def _within(repository: str, bound: str) -> bool:
    return repository == bound or (bound.endswith("/*") and repository.startswith(bound[:-1]))


def _both(
    ours: tuple[str, ...] | None,
    theirs: tuple[str, ...] | None,
    within: Callable[[str, str], bool],
) -> tuple[str, ...] | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    found = {one for one in ours if any(within(one, two) for two in theirs)}
    found |= {two for two in theirs if any(within(two, one) for one in ours)}
    return tuple(sorted(found))


EVERYTHING: Final = Scope()
NOTHING: Final = Scope((), (), ())


def checked_scope(
    verbs: Iterable[str] = (), teams: Iterable[str] = (), repositories: Iterable[str] = ()
) -> Scope:
    """Return the scope of what was asked for, nothing given being no bound; `TrustError` if odd."""
    wanted = {*verbs}
    if unknown := sorted(wanted.difference(VERBS)):
        raise TrustError(
            f"no such verb: {', '.join(unknown)}", cause=f"the verbs are {', '.join(VERBS)}"
        )
    folded = sorted({repository.lower() for repository in repositories})
    for repository in folded:
        if not _REPOSITORY.fullmatch(repository):
            raise TrustError(
                f"{repository!r} is no repository",
                cause="a token is bound to repositories like org/name, or org/* for all of org",
            )
    return Scope(
        tuple(verb for verb in VERBS if verb in wanted) or None,
        tuple(sorted({checked_name(team, "team") for team in teams})) or None,
        tuple(folded) or None,
    )


def read_scope(text: str | None) -> Scope:
    """Return the scope as the database has it; one that cannot be understood permits nothing."""
    if text is None:
        return EVERYTHING
    try:
        found = json.loads(text)
        if not found or set(found) - set(_KEYS):
            return NOTHING
        return checked_scope(**found) if all(found.values()) else NOTHING
    except (ValueError, TypeError, AttributeError, TrustError):
        return NOTHING
