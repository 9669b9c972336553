"""Who acts: a user, a service or an agent, as a token proves it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from holdfast_trust.errors import TrustError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_trust.hours import Hours
    from holdfast_trust.scopes import Scope

Kind = Literal["user", "service", "agent"]
"""An agent acts for a user: its rights are the intersection of its scope and its owner's rights."""

Role = Literal["read", "contribute", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = ("read", "contribute", "write", "admin")
"""What a member may do with what the team owns; each role includes those before it."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven identity for the length of one request.

    `teams` is sorted; it and `roles` hold what counts under the token's scope. `roles` names the
    role in each team, and in the personal namespace: the user's own name, where they are admin.
    `scope` is None for a token without bounds. `generations` is (principal's, token's) at the
    time of proof: what `TrustStore.still_valid` compares, so that long answers can be cut off
    after a revocation. `owner` is the user that an agent acts for, whose teams and roles it has as
    far as its scope goes. `expires_at` (Unix seconds) and `hours` bound the proof in time.
    """

    id: int
    kind: Kind
    name: str
    teams: tuple[str, ...] = ()
    token_id: str = ""
    generations: tuple[int, int] = (0, 0)
    roles: Mapping[str, Role] = field(default_factory=dict, hash=False)
    scope: Scope | None = None
    owner: str | None = None
    expires_at: int | None = None
    hours: Hours | None = None

    @property
    def email(self) -> str:
        """What stands in commits beside the name: no mailbox."""
        return f"{self.name}@users.invalid"

    def teams_with(self, role: Role) -> tuple[str, ...]:
        """Return where the role is at least this one; where no role was told, it is read."""
        least = ROLES.index(role)
        found = {team for team, held in self.roles.items() if ROLES.index(held) >= least}
        return tuple(sorted(found.union(() if least else self.teams)))


def checked_role(role: str) -> Role:
    """Return `role` if there is such a role; raise `TrustError` if not."""
    for known in ROLES:
        if role == known:
            return known
    raise TrustError(f"no such role: {role!r}", cause=f"the roles are {', '.join(ROLES)}")


def checked_name(name: str, what: str) -> str:
    """Return `name` if it may name a user, service, team or token; raise `TrustError` if not."""
    if not _NAME.fullmatch(name):
        raise TrustError(
            f"{name!r} cannot name a {what}",
            cause="a name is 1 to 63 of a-z 0-9 . _ - and starts and ends with a letter or digit",
        )
    return name
