"""Issuing, listing and ending tokens."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from holdfast_trust import tokens
from holdfast_trust.database import agents as agent_table
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import tokens as token_table
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import checked_name
from holdfast_trust.proof import held_tokens, refusal
from holdfast_trust.scopes import EVERYTHING, Scope, read_scope
from holdfast_trust.transactions import Transactions, find_principal, find_team, now

if TYPE_CHECKING:
    from sqlalchemy import Connection, RowMapping

    from holdfast_trust.transactions import Change

SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token at the only moment its secret is known."""

    token_id: str
    secret: str = field(repr=False)
    principal: str
    name: str
    last_four: str
    expires_at: int | None
    changed: bool  # False: this very secret was valid already, with this scope
    scope: Scope = EVERYTHING


class Issuance(Transactions):
    """The part of the store that hands tokens out and takes them back."""

    def issue_token(  # noqa: PLR0913 - one operation with all that it needs
        self,
        principal: str,
        name: str = "default",
        *,
        lifetime_seconds: int | None = None,
        rotate: bool = False,
        secret: str | None = None,
        scope: Scope | None = None,
    ) -> IssuedToken:
        """Issue a token; its secret is in the answer and nowhere else.

        A name that has a valid token is refused unless `rotate`, which ends the old secret.
        `secret` sets one chosen elsewhere (a seed file); at least 16 characters. `scope` bounds
        it; None leaves a token that is rotated the bounds it had, and gives a new one none.
        """
        if secret is not None and len(secret) < SHORTEST_SECRET:
            raise TrustError(
                f"the token {name!r} of {principal!r} is too short to be a secret",
                cause=f"it has {len(secret)} characters, {SHORTEST_SECRET} are the least",
                next_command="leave it out and let holdfast-trust issue one",
            )
        expires_at = (
            None if lifetime_seconds is None else ceil(self._clock.now() + lifetime_seconds)
        )
        with self._write() as change:
            return self._issue(
                change, principal, name, expires_at, rotate=rotate, secret=secret, scope=scope
            )

    def _issue(  # noqa: PLR0913 - as above
        self,
        change: Change,
        principal: str,
        name: str,
        expires_at: int | None,
        *,
        rotate: bool,
        secret: str | None = None,
        scope: Scope | None = None,
    ) -> IssuedToken:
        """Issue a token within a change; an agent's ends with the agent at the latest."""
        checked_name(name, "token")
        token = secret or tokens.mint()
        digest = tokens.digest(token)
        owner = find_principal(change.connection, principal)
        if owner["disabled_at"] is not None:
            raise TrustError(
                f"{principal} is disabled and gets no token",
                next_command=f"holdfast-trust {owner['kind']} enable {principal}",
            )
        if owner["kind"] == "agent":
            end = select(agent_table.c.expires_at).where(agent_table.c.principal_id == owner["id"])
            latest = change.connection.execute(end).scalar_one()
            expires_at = latest if expires_at is None else min(latest, expires_at)
        taken = select(token_table.c.id).where(
            token_table.c.digest == digest,
            (token_table.c.principal_id != owner["id"]) | (token_table.c.name != name),
        )
        if change.connection.execute(taken).first():
            raise TrustError(f"the secret of token {name!r} belongs to another token already")
        values = {
            "digest": digest,
            "last_four": token[-4:],
            "principal_generation": owner["generation"],
            "created_at": now(),
            "expires_at": expires_at,
            "revoked_at": None,
        }
        old = _token_of(change.connection, owner, name)
        kept = read_scope(old["scope"]) if scope is None and old is not None else EVERYTHING
        bounds = scope or kept
        _check_teams(change.connection, principal, bounds)
        values["scope"] = bounds.as_text()
        valid = old is not None and _is_valid(old, owner, self._clock.now())
        token_id, changed = _put_token(
            change.connection, owner, name, values, old, valid=valid, rotate=rotate
        )
        if changed:
            change.record(
                "token.issue",
                principal=principal,
                token=token_id,
                name=name,
                expires_at=expires_at,
                scope=bounds.as_dict(),
            )
        return IssuedToken(
            token_id, token, principal, name, token[-4:], expires_at, changed, bounds
        )

    def revoke_token(self, token_id: str) -> bool:
        """End a token; return whether it had not been revoked. Seen everywhere in a second."""
        with self._write() as change:
            row = (
                change.connection.execute(
                    select(token_table, principal_table.c.name.label("owner"))
                    .join(principal_table)
                    .where(token_table.c.id == token_id)
                )
                .mappings()
                .first()
            )
            if row is None:
                raise TrustError(f"no token {token_id}", next_command="holdfast-trust token list")
            if row["revoked_at"] is not None:
                return False
            change.connection.execute(
                update(token_table)
                .where(token_table.c.id == token_id)
                .values(revoked_at=now(), generation=row["generation"] + 1)
            )
            change.record("token.revoke", principal=row["owner"], token=token_id, name=row["name"])
        return True

    def revoke_all(self, principal: str) -> None:
        """End every token of a principal at once by raising their generation."""
        with self._write() as change:
            found = find_principal(change.connection, principal)
            change.connection.execute(
                update(principal_table)
                .where(principal_table.c.id == found["id"])
                .values(generation=found["generation"] + 1)
            )
            change.record("token.revoke-all", principal=principal)

    def bound_user_tokens(self, longest_seconds: int) -> int:
        """Have no user's token live longer than this since it was issued; return how many did.

        For the day a site's profiles become stricter. Agents' are bounded as users' are; those of
        services are left as they are.
        """
        latest = token_table.c.created_at + longest_seconds
        # issuing rounds up: seconds over the bound are no reason for a change
        unbound = (token_table.c.expires_at.is_(None)) | (token_table.c.expires_at > latest + 60)
        too_long = (
            select(token_table, principal_table.c.name.label("owner"))
            .join(principal_table)
            .where(principal_table.c.kind != "service", token_table.c.revoked_at.is_(None), unbound)
        )
        with self._read() as connection:
            if connection.execute(too_long).first() is None:
                return 0
        with self._write() as change:
            rows = change.connection.execute(too_long).mappings().all()
            for row in rows:
                expires_at = row["created_at"] + longest_seconds
                change.connection.execute(
                    update(token_table)
                    .where(token_table.c.id == row["id"])
                    .values(expires_at=expires_at)
                )
                change.record(
                    "token.shorten",
                    principal=row["owner"],
                    token=row["id"],
                    name=row["name"],
                    expires_at=expires_at,
                )
        return len(rows)

    def token_named(self, token_id: str) -> tuple[str, int]:
        """Return a token's name and when it was issued (Unix seconds); `TrustError` if unknown."""
        statement = select(token_table.c.name, token_table.c.created_at).where(
            token_table.c.id == token_id
        )
        with self._read() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise TrustError(f"no token {token_id}", next_command="holdfast-trust token list")
        return row.name, row.created_at

    def tokens(self, principal: str | None = None) -> list[dict[str, object]]:
        """List tokens, never their secrets: id, principal, name, last_four, state, scope, times."""
        statement = held_tokens().order_by(principal_table.c.name, token_table.c.name)
        if principal:
            statement = statement.where(principal_table.c.name == principal)
        with self._read() as connection:
            if principal:
                find_principal(connection, principal)
            rows = connection.execute(statement).mappings().all()
        at = self._clock.now()
        return [
            {
                "id": row["token_id"],
                "principal": row["name"],
                "name": row["token_name"],
                "last_four": row["last_four"],
                "state": refusal(row, at) or "valid",
                "scope": read_scope(row["scope"]).as_dict(),
                "created_at": row["created_at"],
                "expires_at": row["expires_at"],
            }
            for row in rows
        ]


def _token_of(connection: Connection, owner: RowMapping, name: str) -> RowMapping | None:
    statement = select(token_table).where(
        token_table.c.principal_id == owner["id"], token_table.c.name == name
    )
    return connection.execute(statement).mappings().first()


def _is_valid(token: RowMapping, owner: RowMapping, at: float) -> bool:
    """Tell whether an owner who is not barred has this token still."""
    expires_at = token["expires_at"]
    held = token["revoked_at"] is None and token["principal_generation"] == owner["generation"]
    return held and (expires_at is None or at < expires_at)


def _check_teams(connection: Connection, principal: str, scope: Scope) -> None:
    for team in scope.teams or ():
        if team != principal:  # their personal namespace
            find_team(connection, team)


def _put_token(  # noqa: PLR0913 - a row, what it was, and what may be done to it
    connection: Connection,
    owner: RowMapping,
    name: str,
    values: dict[str, object],
    old: RowMapping | None,
    *,
    valid: bool,
    rotate: bool,
) -> tuple[str, bool]:
    if old is None:
        token_id = secrets.token_hex(8)
        connection.execute(
            insert(token_table).values(
                id=token_id, principal_id=owner["id"], name=name, generation=1, **values
            )
        )
        return token_id, True
    if valid and old["digest"] == values["digest"] and old["scope"] == values["scope"]:
        return str(old["id"]), False
    if valid and not rotate:
        raise TrustError(
            f"{owner['name']} has a valid token {name!r} (…{old['last_four']})",
            next_command=f"give the new one another --name, or replace it: "
            f"holdfast-trust token issue {owner['name']} --name {name} --rotate",
        )
    # An id names one secret: what was signed for the holder of the old one ends with it.
    same = old["digest"] == values["digest"]
    token_id = str(old["id"]) if same else secrets.token_hex(8)
    connection.execute(
        update(token_table)
        .where(token_table.c.id == old["id"])
        .values(id=token_id, generation=old["generation"] + 1, **values)
    )
    return token_id, True
