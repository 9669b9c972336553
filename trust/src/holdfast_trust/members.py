"""Users, services and the teams they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from sqlalchemy import delete, insert, select, update

from holdfast_trust.database import memberships
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Kind, Role, checked_name, checked_role
from holdfast_trust.transactions import Transactions, find_principal, find_team, now

if TYPE_CHECKING:
    from sqlalchemy import RowMapping, Select, Table

    from holdfast_trust.transactions import Change

Teams = Iterable[str] | Mapping[str, Role | None]


class Members(Transactions):
    """The part of the store that says who there is."""

    def add_user(self, name: str, teams: Teams = ()) -> bool:
        """Add a user to existing teams; return whether anything changed.

        `teams` may give roles; one who is in a team keeps theirs unless another is given.
        """
        return self._add_principal("user", name, teams)

    def add_service(self, name: str, teams: Teams = ()) -> bool:
        """Add a service to existing teams as `add_user` does; return whether anything changed."""
        return self._add_principal("service", name, teams)

    def add_team(self, name: str) -> bool:
        """Add a team; return whether it is new."""
        checked_name(name, "team")
        with self._write() as change:
            known = select(team_table.c.id).where(team_table.c.name == name)
            if change.connection.execute(known).first():
                return False
            _keep_apart(change, principal_table, name, "user or service")
            change.connection.execute(insert(team_table).values(name=name, created_at=now()))
            change.record("team.add", team=name)
        return True

    def add_member(self, team: str, principal: str, role: Role | None = None) -> bool:
        """Put a principal in a team; return whether anything changed.

        The role is `read` unless given; one who is in it keeps theirs unless another is given.
        """
        with self._write() as change:
            return self._join(change, team, find_principal(change.connection, principal), role)

    def set_role(self, team: str, principal: str, role: Role) -> bool:
        """Give a member another role; return whether it is another. `TrustError` if no member."""
        with self._write() as change:
            found = find_principal(change.connection, principal)
            team_id = find_team(change.connection, team)
            if _membership(change, found, team_id) is None:
                raise TrustError(
                    f"{principal} is not in {team}",
                    next_command=f"holdfast-trust team member add {team} {principal} --role {role}",
                )
            return self._join(change, team, found, role)

    def role_in(self, team: str, principal: str) -> Role | None:
        """Return a member's role, None for who is no member."""
        statement = (
            select(memberships.c.role)
            .join(team_table, team_table.c.id == memberships.c.team_id)
            .join(principal_table, principal_table.c.id == memberships.c.principal_id)
            .where(team_table.c.name == team, principal_table.c.name == principal)
        )
        with self._read() as connection:
            return cast("Role | None", connection.execute(statement).scalar())

    def members_of(self, team: str) -> dict[str, Role] | None:
        """Return the users in a team with their roles, by name; None if there is no such team."""
        statement = (
            select(principal_table.c.name, memberships.c.role)
            .select_from(team_table)
            .outerjoin(memberships, memberships.c.team_id == team_table.c.id)
            .outerjoin(
                principal_table,
                (principal_table.c.id == memberships.c.principal_id)
                & (principal_table.c.kind == "user"),
            )
            .where(team_table.c.name == team)
            .order_by(principal_table.c.name)
        )
        return self._roles(statement)

    def teams_of(self, user: str) -> dict[str, Role] | None:
        """Return a user's teams with their roles, by name; None if there is no such user."""
        statement = (
            select(team_table.c.name, memberships.c.role)
            .select_from(principal_table)
            .outerjoin(memberships, memberships.c.principal_id == principal_table.c.id)
            .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
            .where(principal_table.c.name == user, principal_table.c.kind == "user")
            .order_by(team_table.c.name)
        )
        return self._roles(statement)

    def _roles(self, statement: Select[str, str]) -> dict[str, Role] | None:
        with self._read() as connection:
            rows = connection.execute(statement).all()
        return {name: checked_role(role) for name, role in rows if name} if rows else None

    def remove_member(self, team: str, principal: str) -> bool:
        """Take a principal out of a team; return whether they were in it."""
        with self._write() as change:
            found = find_principal(change.connection, principal)
            team_id = find_team(change.connection, team)
            gone = change.connection.execute(
                delete(memberships).where(
                    memberships.c.principal_id == found["id"], memberships.c.team_id == team_id
                )
            )
            if not gone.rowcount:
                return False
            change.record("team.member.remove", team=team, principal=principal)
        return True

    def set_disabled(self, principal: str, *, disabled: bool, kind: Kind | None = None) -> bool:
        """Bar a principal (ending every token of theirs for good) or admit them again.

        With `kind`, a principal of another kind is refused.
        """
        with self._write() as change:
            found = find_principal(change.connection, principal)
            if found["kind"] == "agent":
                raise TrustError(
                    f"{principal} is an agent",
                    next_command=f"holdfast-trust agent end {principal}",
                )
            if kind is not None and found["kind"] != kind:
                raise TrustError(f"{principal} is not a {kind} but a {found['kind']}")
            if (found["disabled_at"] is not None) == disabled:
                return False
            change.connection.execute(
                update(principal_table)
                .where(principal_table.c.id == found["id"])
                .values(
                    disabled_at=now() if disabled else None,
                    generation=found["generation"] + (1 if disabled else 0),
                )
            )
            verb = "disable" if disabled else "enable"
            change.record(f"{found['kind']}.{verb}", principal=principal)
        return True

    def kind_of(self, principal: str) -> Kind:
        """Return whose kind a name is: a user's, a service's, an agent's; else `TrustError`."""
        with self._read() as connection:
            return cast("Kind", find_principal(connection, principal)["kind"])

    def principals(self, kind: Kind | None = None) -> list[dict[str, object]]:
        """List principals by name: name, kind, teams, roles, created_at, disabled."""
        statement = (
            select(principal_table, team_table.c.name.label("team"), memberships.c.role)
            .outerjoin(memberships, memberships.c.principal_id == principal_table.c.id)
            .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
            .order_by(principal_table.c.name, team_table.c.name)
        )
        if kind:
            statement = statement.where(principal_table.c.kind == kind)
        found: dict[str, dict[str, object]] = {}
        belongs: dict[str, dict[str, str]] = {}
        with self._read() as connection:
            for row in connection.execute(statement).mappings():
                roles = belongs.setdefault(row["name"], {})
                roles |= {row["team"]: row["role"]} if row["team"] else {}
                found[row["name"]] = {
                    "name": row["name"],
                    "kind": row["kind"],
                    "teams": list(roles),
                    "roles": roles,
                    "created_at": row["created_at"],
                    "disabled": row["disabled_at"] is not None,
                }
        return list(found.values())

    def teams(self) -> list[dict[str, object]]:
        """List teams by name: name, members (their names), roles (of each)."""
        statement = (
            select(team_table.c.name, principal_table.c.name.label("member"), memberships.c.role)
            .outerjoin(memberships, memberships.c.team_id == team_table.c.id)
            .outerjoin(principal_table, principal_table.c.id == memberships.c.principal_id)
            .order_by(team_table.c.name, principal_table.c.name)
        )
        found: dict[str, dict[str, str]] = {}
        with self._read() as connection:
            for team, member, role in connection.execute(statement):
                found.setdefault(team, {}).update({member: role} if member else {})
        return [
            {"name": team, "members": list(roles), "roles": roles} for team, roles in found.items()
        ]

    def _add_principal(self, kind: Kind, name: str, teams: Teams) -> bool:
        checked_name(name, kind)
        roles = dict(teams) if isinstance(teams, Mapping) else dict.fromkeys(teams)
        with self._write() as change:
            statement = select(principal_table).where(principal_table.c.name == name)
            found = change.connection.execute(statement).mappings().first()
            changed = found is None
            if found is None:
                _keep_apart(change, team_table, name, "team")
                change.connection.execute(
                    insert(principal_table).values(
                        kind=kind, name=name, generation=1, created_at=now()
                    )
                )
                change.record(f"{kind}.add", principal=name)
                found = find_principal(change.connection, name)
            elif found["kind"] != kind:
                raise TrustError(
                    f"{name} is a {found['kind']} already", cause="names are shared by all kinds"
                )
            for team, role in roles.items():
                changed = self._join(change, team, found, role) or changed
        return changed

    def _join(self, change: Change, team: str, found: RowMapping, role: Role | None) -> bool:
        team_id = find_team(change.connection, team)
        if found["kind"] == "agent":
            raise TrustError(
                f"{found['name']} is an agent, and in the teams of the user it acts for",
                next_command="holdfast-trust agent show " + found["name"],
            )
        if role is not None:
            checked_role(role)
        held = _membership(change, found, team_id)
        if held is None:
            values = {"principal_id": found["id"], "team_id": team_id, "role": role or "read"}
            change.connection.execute(insert(memberships).values(values))
            change.record(
                "team.member.add", team=team, principal=found["name"], role=role or "read"
            )
            return True
        if role is None or role == held["role"]:
            return False
        change.connection.execute(
            update(memberships)
            .where(memberships.c.principal_id == found["id"], memberships.c.team_id == team_id)
            .values(role=role)
        )
        change.record(
            "team.member.role", team=team, principal=found["name"], role=role, before=held["role"]
        )
        return True


def _membership(change: Change, found: RowMapping, team_id: int) -> RowMapping | None:
    statement = select(memberships).where(
        memberships.c.principal_id == found["id"], memberships.c.team_id == team_id
    )
    return change.connection.execute(statement).mappings().first()


def _keep_apart(change: Change, table: Table, name: str, other: str) -> None:
    """Refuse a name that the other table has: both would own the namespace of that name."""
    if change.connection.execute(select(table.c.id).where(table.c.name == name)).first():
        raise TrustError(
            f"there is a {other} {name!r} already",
            cause="users, services and teams own what is stored under their name: "
            "a name is one of theirs",
        )
