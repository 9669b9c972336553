"""What a token proves: the one query behind every proof, and how its rows are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, cast

from sqlalchemy import and_, exists, func, or_, select

from holdfast_trust.database import agents, memberships, switches
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.database import tokens as token_table
from holdfast_trust.hours import read_hours
from holdfast_trust.principals import ROLES, Kind, Principal, Role, checked_role
from holdfast_trust.scopes import read_scope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import RowMapping, Select

Refusal = Literal[
    "mistyped", "unknown", "disabled", "revoked", "stopped", "expired", "hours", "early"
]
"""Why a token proves nobody.

`stopped`: the kill switch; `hours`: an agent outside its hours; `early`: by the clock here the
token is yet to be issued.
"""

_SKEW_SECONDS: Final = 300  # between the host that issues and those that check
_AGENTS_MOST: Final[Role] = "write"

_owner = principal_table.alias("owner")
_whose = func.coalesce(agents.c.owner_id, principal_table.c.id)
# A team of the user's own name (made before names were kept apart) owns what bears it.
_namesake = exists().where(
    team_table.alias("namesake").c.name == func.coalesce(_owner.c.name, principal_table.c.name)
)
_stopped = exists().where(
    switches.c.lifted_at.is_(None),
    or_(
        and_(switches.c.kind == "key", switches.c.name == token_table.c.id),
        and_(
            switches.c.kind == principal_table.c.kind,
            switches.c.name == principal_table.c.name,
        ),
        and_(switches.c.kind == "user", switches.c.name == _owner.c.name),
    ),
)


def held_tokens() -> Select[tuple[object, ...]]:
    """Select tokens with all that `refusal` judges, one row each."""
    return (
        select(
            token_table.c.id.label("token_id"),
            token_table.c.name.label("token_name"),
            token_table.c.last_four,
            token_table.c.generation.label("token_generation"),
            token_table.c.principal_generation,
            token_table.c.expires_at,
            token_table.c.revoked_at,
            token_table.c.created_at,
            token_table.c.scope,
            principal_table.c.id,
            principal_table.c.kind,
            principal_table.c.name,
            principal_table.c.generation,
            principal_table.c.disabled_at,
            agents.c.expires_at.label("agent_expires_at"),
            agents.c.owner_generation.label("agent_generation"),
            agents.c.hours,
            agents.c.scope.label("agent_scope"),
            _owner.c.name.label("owner"),
            _owner.c.generation.label("owner_generation"),
            _owner.c.disabled_at.label("owner_disabled_at"),
            _stopped.label("stopped"),
        )
        .select_from(token_table)
        .join(principal_table, principal_table.c.id == token_table.c.principal_id)
        .outerjoin(agents, agents.c.principal_id == principal_table.c.id)
        .outerjoin(_owner, _owner.c.id == agents.c.owner_id)
    )


def holders() -> Select[tuple[object, ...]]:
    """Select the same with what the holder may: one row for each team that is theirs.

    An agent's teams are its owner's, as they are at this moment.
    """
    return (
        held_tokens()
        .outerjoin(memberships, memberships.c.principal_id == _whose)
        .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
        .add_columns(
            team_table.c.name.label("team"), memberships.c.role, _namesake.label("namesake")
        )
    )


def refusal(row: Mapping[str, object] | RowMapping, at: float) -> Refusal | None:
    """Judge a row of `held_tokens` at a Unix time."""
    if row["disabled_at"] is not None or row["owner_disabled_at"] is not None:
        return "disabled"
    if row["revoked_at"] is not None or row["principal_generation"] != row["generation"]:
        return "revoked"
    # What ended every token of the owner's ended their agents; one of nobody's never began.
    if row["kind"] == "agent" and (
        row["agent_generation"] is None or row["agent_generation"] != row["owner_generation"]
    ):
        return "revoked"
    return "stopped" if row["stopped"] else _untimely(row, at)


def _untimely(row: Mapping[str, object] | RowMapping, at: float) -> Refusal | None:
    expires_at = _end(row)
    if expires_at is not None:
        if at >= expires_at:
            return "expired"
        # A clock before the token's own beginning cannot tell whether its end has come.
        if at + _SKEW_SECONDS < cast("int", row["created_at"]):
            return "early"
    hours = read_hours(cast("str | None", row["hours"]))
    return None if hours is None or hours.cover(at) else "hours"


def timely(principal: Principal, at: float) -> Refusal | None:
    """Judge a proof that was made by the time alone: what changes without anybody's doing."""
    if principal.expires_at is not None and at >= principal.expires_at:
        return "expired"
    return None if principal.hours is None or principal.hours.cover(at) else "hours"


def principal_of(rows: Sequence[RowMapping]) -> Principal:
    """Return whom the rows of one token prove, none of which was refused."""
    row = rows[0]
    agent = row["kind"] == "agent"
    scope = read_scope(row["scope"])
    if agent:
        scope = scope.narrowed(read_scope(row["agent_scope"]))
    roles = {each["team"]: checked_role(each["role"]) for each in rows if each["team"] is not None}
    teams = sorted(filter(scope.counts, roles))
    person = row["owner"] if agent else row["name"]
    if row["kind"] != "service" and not row["namesake"]:
        roles[person] = "admin"
    if agent:  # whatever its owner is: it administers nothing
        roles = {name: min(role, _AGENTS_MOST, key=ROLES.index) for name, role in roles.items()}
    return Principal(
        id=row["id"],
        kind=cast("Kind", row["kind"]),
        name=row["name"],
        teams=tuple(teams),
        token_id=row["token_id"],
        generations=(row["generation"], row["token_generation"]),
        roles={name: role for name, role in roles.items() if scope.counts(name)},
        scope=scope,
        owner=row["owner"],
        expires_at=_end(row),
        hours=read_hours(row["hours"]),
    )


def _end(row: Mapping[str, object] | RowMapping) -> int | None:
    """Return when the token ends, or its agent, whichever is first."""
    ends = [cast("int", row[key]) for key in ("expires_at", "agent_expires_at") if row[key]]
    return min(ends, default=None)
