"""Agents: programs that act for a user, for hours, with less than the user's rights."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select, update

from holdfast_trust.database import agents
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.errors import TrustError
from holdfast_trust.issuance import Issuance, IssuedToken
from holdfast_trust.principals import checked_name
from holdfast_trust.scopes import EVERYTHING, Scope, read_scope
from holdfast_trust.transactions import find_principal, find_team, now

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from holdfast_trust.hours import Hours
    from holdfast_trust.transactions import Change

LONGEST_HOURS: Final = 168
"""An agent lives a week at most, or what the site's profiles permit, whichever is less."""

ISSUED_AS: Final = "agent"
"""The name of the token that an agent comes with."""

_owner = principal_table.alias("owner")


class Agents(Issuance):
    """The part of the store that makes agents and ends them."""

    def create_agent(
        self,
        name: str,
        owner: str,
        *,
        lifetime_seconds: float,
        scope: Scope,
        hours: Hours | None = None,
    ) -> IssuedToken:
        """Make an agent of a user's and issue its token, whose secret is in the answer alone.

        `scope` names its verbs and models; its rights are what is within it and its owner's, at
        each request. The name of one that has ended may be used again for the same user.
        """
        _check(name, lifetime_seconds, scope)
        expires_at = ceil(self._clock.now() + lifetime_seconds)
        with self._write() as change:
            user = find_principal(change.connection, owner)
            if user["kind"] != "user":
                raise TrustError(
                    f"{owner} is no user but {_a(user['kind'])}",
                    cause="an agent acts for a person; agents and services have none of their own",
                )
            if user["disabled_at"] is not None:
                raise TrustError(
                    f"{owner} is disabled and gets no agent",
                    next_command=f"holdfast-trust user enable {owner}",
                )
            for team in scope.teams or ():
                if team != owner:  # their personal namespace
                    find_team(change.connection, team)
            agent_id = self._place(change, name, user)
            change.connection.execute(
                insert(agents).values(
                    principal_id=agent_id,
                    owner_id=user["id"],
                    owner_generation=user["generation"],
                    expires_at=expires_at,
                    hours=None if hours is None else str(hours),
                    scope=scope.as_text(),
                )
            )
            change.record(
                "agent.create",
                principal=name,
                owner=owner,
                expires_at=expires_at,
                hours=None if hours is None else str(hours),
                scope=scope.as_dict(),
            )
            return self._issue(change, name, ISSUED_AS, expires_at, rotate=True, scope=EVERYTHING)

    def end_agent(self, name: str) -> bool:
        """End an agent and its tokens, for good; return whether it had not been ended."""
        with self._write() as change:
            found = find_principal(change.connection, name)
            if found["kind"] != "agent":
                raise TrustError(f"{name} is no agent but {_a(found['kind'])}")
            if found["disabled_at"] is not None:
                return False
            change.connection.execute(
                update(principal_table)
                .where(principal_table.c.id == found["id"])
                .values(disabled_at=now(), generation=found["generation"] + 1)
            )
            change.record("agent.end", principal=name)
        return True

    def agents(
        self, *, owner: str | None = None, name: str | None = None
    ) -> list[dict[str, object]]:
        """List agents by name, of all users or one, or one of them: what they may, until when."""
        statement = (
            select(
                principal_table,
                agents,
                _owner.c.name.label("owner"),
                _owner.c.generation.label("generation_now"),
                _owner.c.disabled_at.label("owner_disabled_at"),
            )
            .join(agents, agents.c.principal_id == principal_table.c.id)
            .join(_owner, _owner.c.id == agents.c.owner_id)
            .order_by(principal_table.c.name)
        )
        with self._read() as connection:
            if owner is not None:
                find_principal(connection, owner)
                statement = statement.where(_owner.c.name == owner)
            if name is not None:
                statement = statement.where(principal_table.c.name == name)
            rows = connection.execute(statement).mappings().all()
        if name is not None and not rows:
            raise TrustError(f"no agent {name!r}", next_command="holdfast-trust agent list")
        at = self._clock.now()
        return [
            {
                "name": row["name"],
                "owner": row["owner"],
                "state": _state(row, at),
                "expires_at": row["expires_at"],
                "hours": row["hours"],
                "scope": read_scope(row["scope"]).as_dict(),
                "created_at": row["created_at"],
            }
            for row in rows
        ]

    def _place(self, change: Change, name: str, user: RowMapping) -> int:
        """Return the id of a principal for a new agent: a fresh one, or that of one that ended."""
        team = select(team_table.c.id).where(team_table.c.name == name)
        if change.connection.execute(team).first():
            raise TrustError(
                f"there is a team {name!r} already", cause="names are shared by all kinds"
            )
        known = select(principal_table).where(principal_table.c.name == name)
        old = change.connection.execute(known).mappings().first()
        if old is None:
            change.connection.execute(
                insert(principal_table).values(
                    kind="agent", name=name, generation=1, created_at=now()
                )
            )
            return int(find_principal(change.connection, name)["id"])
        if old["kind"] != "agent":
            raise TrustError(
                f"{name} is {_a(old['kind'])} already", cause="names are shared by all kinds"
            )
        held = select(agents).where(agents.c.principal_id == old["id"])
        was = change.connection.execute(held).mappings().one()
        if was["owner_id"] != user["id"]:
            raise TrustError(
                f"there is an agent {name!r} of somebody else already",
                cause="the record of what it did would be read as another person's",
                next_command="give the new one another name",
            )
        alive = old["disabled_at"] is None and self._clock.now() < was["expires_at"]
        if alive and was["owner_generation"] == user["generation"]:
            raise TrustError(
                f"the agent {name} is at work",
                next_command=f"holdfast-trust agent end {name}, or give the new one another name",
            )
        change.connection.execute(delete(agents).where(agents.c.principal_id == old["id"]))
        change.connection.execute(
            update(principal_table)
            .where(principal_table.c.id == old["id"])
            .values(disabled_at=None, generation=old["generation"] + 1, created_at=now())
        )
        return int(old["id"])


def _check(name: str, lifetime_seconds: float, scope: Scope) -> None:
    checked_name(name, "agent")
    if not 0 < lifetime_seconds <= LONGEST_HOURS * 3600:
        raise TrustError(
            f"an agent cannot live {lifetime_seconds / 3600:g} hours",
            cause=f"it lives more than none and at most {LONGEST_HOURS}",
            next_command="make it for hours, and again when they are over",
        )
    if not scope.verbs or not scope.repositories:
        raise TrustError(
            f"the agent {name} would be bound to nothing",
            cause="an agent has the verbs and the models that it is given, never all of its "
            "owner's",
            next_command="name a model: --model org/name, or --model 'org/*'",
        )
    if "admin" in scope.verbs:
        raise TrustError(
            f"the agent {name} cannot be given admin",
            cause="agents administer and approve nothing, whoever they act for",
        )


def _state(row: RowMapping, at: float) -> str:
    if row["disabled_at"] is not None:
        return "ended"
    if row["owner_disabled_at"] is not None or row["owner_generation"] != row["generation_now"]:
        return "owner barred"
    return "expired" if at >= row["expires_at"] else "valid"


def _a(kind: str) -> str:
    return f"an {kind}" if kind == "agent" else f"a {kind}"
