"""Principals, teams and tokens in a database; every change an event on the ledger."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from holdfast_trust import database, tokens
from holdfast_trust.database import memberships
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.database import tokens as token_table
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Kind, Principal, checked_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, RowMapping

    from holdfast_trust.ledger import Ledger

Refusal = Literal["mistyped", "unknown", "disabled", "revoked", "expired"]
"""Why a token proves nobody."""

LONGEST_CACHE_SECONDS = 1.0
_CACHE_ENTRIES = 4096
_SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token at the only moment its secret is known."""

    token_id: str
    secret: str = field(repr=False)
    principal: str
    name: str
    last_four: str
    expires_at: int | None
    changed: bool  # False: this very secret was valid already


class _Cached(NamedTuple):
    principal: Principal
    until: float  # monotonic seconds
    expires_at: int | None  # Unix seconds


class TrustStore:
    """The identity database at `url` (`sqlite:////file` or `postgresql+psycopg:///database`).

    With a `ledger`, each change is appended to it before the database commits: a change that
    cannot be recorded does not happen. `actor` is who the events say did it. `cache_seconds`
    bounds how long another process's revocation can go unseen; at most one second.
    Safe to share between threads; open it after a fork.
    """

    def __init__(
        self,
        url: str,
        *,
        ledger: Ledger | None = None,
        actor: str = "",
        cache_seconds: float = 0.5,
    ) -> None:
        if not 0 <= cache_seconds <= LONGEST_CACHE_SECONDS:
            raise TrustError(
                f"a token cache of {cache_seconds} s is not allowed",
                cause="a revoked token must be refused within a second",
            )
        self._engine = database.connect(url)
        self._writer = self._engine.execution_options(writes=True)
        self._ledger = ledger
        self._actor = actor
        self._cache_seconds = cache_seconds
        self._cache: dict[str, _Cached] = {}
        self._cache_lock = threading.Lock()

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    def create_schema(self, readers: tuple[str, ...] = ()) -> bool:
        """Create the tables if missing, let PostgreSQL roles read them; return if made."""
        return database.create(self._engine, readers)

    # -- proving who asks ------------------------------------------------------------------

    def authenticate(self, token: str) -> Principal | None:
        """Return whom `token` proves, or None; one indexed query, or none within the cache."""
        found = self.examine(token)
        return found if isinstance(found, Principal) else None

    async def authenticate_async(self, token: str) -> Principal | None:
        """Do as `authenticate`, answering from the cache at once and else in a thread."""
        cached = self._from_cache(tokens.digest(token))
        return cached or await asyncio.to_thread(self.authenticate, token)

    def examine(self, token: str) -> Principal | Refusal:
        """Return whom `token` proves, or why it proves nobody."""
        digest = tokens.digest(token)
        cached = self._from_cache(digest)
        if cached:
            return cached
        statement = (
            select(
                token_table.c.id.label("token_id"),
                token_table.c.generation.label("token_generation"),
                token_table.c.principal_generation,
                token_table.c.expires_at,
                token_table.c.revoked_at,
                principal_table.c.id,
                principal_table.c.kind,
                principal_table.c.name,
                principal_table.c.generation,
                principal_table.c.disabled_at,
                team_table.c.name.label("team"),
            )
            .join(principal_table, principal_table.c.id == token_table.c.principal_id)
            .outerjoin(memberships, memberships.c.principal_id == principal_table.c.id)
            .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
            .where(token_table.c.digest == digest)
        )
        with self._read() as connection:
            rows = connection.execute(statement).mappings().all()
        if not rows:
            return "mistyped" if tokens.mistyped(token) else "unknown"
        row = rows[0]
        refusal = _refusal(row)
        if refusal:
            return refusal
        principal = Principal(
            id=row["id"],
            kind=cast("Kind", row["kind"]),
            name=row["name"],
            teams=tuple(sorted(each["team"] for each in rows if each["team"] is not None)),
            token_id=row["token_id"],
            generations=(row["generation"], row["token_generation"]),
        )
        self._remember(digest, principal, row["expires_at"])
        return principal

    def still_valid(self, principal: Principal) -> bool:
        """Say whether the proof behind `principal` still holds: for cutting long answers off."""
        statement = (
            select(token_table, principal_table.c.disabled_at)
            .join(principal_table, principal_table.c.id == token_table.c.principal_id)
            .where(
                token_table.c.id == principal.token_id,
                principal_table.c.id == principal.id,
                principal_table.c.generation == principal.generations[0],
                token_table.c.generation == principal.generations[1],
            )
            .add_columns(principal_table.c.generation.label("owner_generation"))
        )
        with self._read() as connection:
            row = connection.execute(statement).mappings().first()
        return row is not None and _refusal({**row, "generation": row["owner_generation"]}) is None

    # -- users, services, teams --------------------------------------------------------------

    def add_user(self, name: str, teams: tuple[str, ...] = ()) -> bool:
        """Add a user to existing teams; return whether anything changed."""
        return self._add_principal("user", name, teams)

    def add_service(self, name: str, teams: tuple[str, ...] = ()) -> bool:
        """Add a service to existing teams; return whether anything changed."""
        return self._add_principal("service", name, teams)

    def add_team(self, name: str) -> bool:
        """Add a team; return whether it is new."""
        checked_name(name, "team")
        with self._write() as connection:
            known = select(team_table.c.id).where(team_table.c.name == name)
            if connection.execute(known).first():
                return False
            connection.execute(insert(team_table).values(name=name, created_at=_now()))
            self._record("team.add", team=name)
        return True

    def add_member(self, team: str, principal: str) -> bool:
        """Put a principal in a team; return whether they were not in it."""
        with self._write() as connection:
            return self._join(connection, team, _find(connection, principal))

    def remove_member(self, team: str, principal: str) -> bool:
        """Take a principal out of a team; return whether they were in it."""
        with self._write() as connection:
            found = _find(connection, principal)
            team_id = _team_id(connection, team)
            gone = connection.execute(
                delete(memberships).where(
                    memberships.c.principal_id == found["id"], memberships.c.team_id == team_id
                )
            )
            if not gone.rowcount:
                return False
            self._record("team.member.remove", team=team, principal=principal)
        return True

    def set_disabled(self, principal: str, *, disabled: bool) -> bool:
        """Bar a principal (ending every token of theirs for good) or admit them again."""
        with self._write() as connection:
            found = _find(connection, principal)
            if (found["disabled_at"] is not None) == disabled:
                return False
            connection.execute(
                update(principal_table)
                .where(principal_table.c.id == found["id"])
                .values(
                    disabled_at=_now() if disabled else None,
                    generation=found["generation"] + (1 if disabled else 0),
                )
            )
            verb = "disable" if disabled else "enable"
            self._record(f"{found['kind']}.{verb}", principal=principal)
        return True

    def principals(self, kind: Kind | None = None) -> list[dict[str, object]]:
        """List principals by name: name, kind, teams, created_at, disabled."""
        statement = (
            select(principal_table, team_table.c.name.label("team"))
            .outerjoin(memberships, memberships.c.principal_id == principal_table.c.id)
            .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
            .order_by(principal_table.c.name, team_table.c.name)
        )
        if kind:
            statement = statement.where(principal_table.c.kind == kind)
        found: dict[str, dict[str, object]] = {}
        belongs: dict[str, list[str]] = {}
        with self._read() as connection:
            for row in connection.execute(statement).mappings():
                belongs.setdefault(row["name"], []).extend([row["team"]] if row["team"] else [])
                found[row["name"]] = {
                    "name": row["name"],
                    "kind": row["kind"],
                    "teams": belongs[row["name"]],
                    "created_at": row["created_at"],
                    "disabled": row["disabled_at"] is not None,
                }
        return list(found.values())

    def teams(self) -> list[dict[str, object]]:
        """List teams by name with their members' names."""
        statement = (
            select(team_table.c.name, principal_table.c.name.label("member"))
            .outerjoin(memberships, memberships.c.team_id == team_table.c.id)
            .outerjoin(principal_table, principal_table.c.id == memberships.c.principal_id)
            .order_by(team_table.c.name, principal_table.c.name)
        )
        found: dict[str, list[str]] = {}
        with self._read() as connection:
            for team, member in connection.execute(statement):
                found.setdefault(team, []).extend([member] if member else [])
        return [{"name": team, "members": members} for team, members in found.items()]

    # -- tokens ------------------------------------------------------------------------------

    def issue_token(
        self,
        principal: str,
        name: str = "default",
        *,
        lifetime_seconds: int | None = None,
        rotate: bool = False,
        secret: str | None = None,
    ) -> IssuedToken:
        """Issue a token; its secret is in the answer and nowhere else.

        A name that has a valid token is refused unless `rotate`, which ends the old secret.
        `secret` sets one chosen elsewhere (a seed file); at least 16 characters.
        """
        checked_name(name, "token")
        if secret is not None and len(secret) < _SHORTEST_SECRET:
            raise TrustError(
                f"the token {name!r} of {principal!r} is too short to be a secret",
                cause=f"it has {len(secret)} characters, {_SHORTEST_SECRET} are the least",
                next_command="leave it out and let holdfast-trust issue one",
            )
        token = secret or tokens.mint()
        digest, now = tokens.digest(token), _now()
        expires_at = None if lifetime_seconds is None else now + lifetime_seconds
        with self._write() as connection:
            owner = _find(connection, principal)
            if owner["disabled_at"] is not None:
                raise TrustError(
                    f"{principal} is disabled and gets no token",
                    next_command=f"holdfast-trust {owner['kind']} enable {principal}",
                )
            taken = select(token_table.c.id).where(
                token_table.c.digest == digest,
                (token_table.c.principal_id != owner["id"]) | (token_table.c.name != name),
            )
            if connection.execute(taken).first():
                raise TrustError(f"the secret of token {name!r} belongs to another token already")
            values = {
                "digest": digest,
                "last_four": token[-4:],
                "principal_generation": owner["generation"],
                "created_at": now,
                "expires_at": expires_at,
                "revoked_at": None,
            }
            token_id, changed = self._put_token(connection, owner, name, values, rotate=rotate)
            if changed:
                self._record(
                    "token.issue",
                    principal=principal,
                    token=token_id,
                    name=name,
                    expires_at=expires_at,
                )
        return IssuedToken(token_id, token, principal, name, token[-4:], expires_at, changed)

    def revoke_token(self, token_id: str) -> bool:
        """End a token; return whether it had not been revoked. Seen everywhere in a second."""
        with self._write() as connection:
            row = (
                connection.execute(
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
            connection.execute(
                update(token_table)
                .where(token_table.c.id == token_id)
                .values(revoked_at=_now(), generation=row["generation"] + 1)
            )
            self._record("token.revoke", principal=row["owner"], token=token_id, name=row["name"])
        return True

    def revoke_all(self, principal: str) -> None:
        """End every token of a principal at once by raising their generation."""
        with self._write() as connection:
            found = _find(connection, principal)
            connection.execute(
                update(principal_table)
                .where(principal_table.c.id == found["id"])
                .values(generation=found["generation"] + 1)
            )
            self._record("token.revoke-all", principal=principal)

    def tokens(self, principal: str | None = None) -> list[dict[str, object]]:
        """List tokens, never their secrets: id, principal, name, last_four, state, times."""
        statement = (
            select(
                token_table,
                principal_table.c.name.label("owner"),
                principal_table.c.generation.label("owner_generation"),
                principal_table.c.disabled_at,
            )
            .join(principal_table)
            .order_by(principal_table.c.name, token_table.c.name)
        )
        if principal:
            statement = statement.where(principal_table.c.name == principal)
        with self._read() as connection:
            if principal:
                _find(connection, principal)
            rows = connection.execute(statement).mappings().all()
        return [
            {
                "id": row["id"],
                "principal": row["owner"],
                "name": row["name"],
                "last_four": row["last_four"],
                "state": _refusal({**row, "generation": row["owner_generation"]}) or "valid",
                "created_at": row["created_at"],
                "expires_at": row["expires_at"],
            }
            for row in rows
        ]

    # -- within --------------------------------------------------------------------------------

    def _add_principal(self, kind: Kind, name: str, teams: tuple[str, ...]) -> bool:
        checked_name(name, kind)
        with self._write() as connection:
            statement = select(principal_table).where(principal_table.c.name == name)
            found = connection.execute(statement).mappings().first()
            changed = found is None
            if found is None:
                connection.execute(
                    insert(principal_table).values(
                        kind=kind, name=name, generation=1, created_at=_now()
                    )
                )
                self._record(f"{kind}.add", principal=name)
                found = _find(connection, name)
            elif found["kind"] != kind:
                raise TrustError(
                    f"{name} is a {found['kind']} already", cause="names are shared by all kinds"
                )
            for team in teams:
                changed = self._join(connection, team, found) or changed
        return changed

    def _join(self, connection: Connection, team: str, found: RowMapping) -> bool:
        team_id = _team_id(connection, team)
        inside = select(memberships.c.team_id).where(
            and_(memberships.c.principal_id == found["id"], memberships.c.team_id == team_id)
        )
        if connection.execute(inside).first():
            return False
        connection.execute(insert(memberships).values(principal_id=found["id"], team_id=team_id))
        self._record("team.member.add", team=team, principal=found["name"])
        return True

    def _put_token(
        self,
        connection: Connection,
        owner: RowMapping,
        name: str,
        values: dict[str, object],
        *,
        rotate: bool,
    ) -> tuple[str, bool]:
        old = (
            connection.execute(
                select(token_table).where(
                    token_table.c.principal_id == owner["id"], token_table.c.name == name
                )
            )
            .mappings()
            .first()
        )
        if old is None:
            token_id = secrets.token_hex(8)
            connection.execute(
                insert(token_table).values(
                    id=token_id, principal_id=owner["id"], name=name, generation=1, **values
                )
            )
            return token_id, True
        valid = _refusal({**old, "generation": owner["generation"], "disabled_at": None}) is None
        if valid and old["digest"] == values["digest"]:
            return str(old["id"]), False
        if valid and not rotate:
            raise TrustError(
                f"{owner['name']} has a valid token {name!r} (…{old['last_four']})",
                next_command=f"give the new one another --name, or replace it: "
                f"holdfast-trust token issue {owner['name']} --name {name} --rotate",
            )
        connection.execute(
            update(token_table)
            .where(token_table.c.id == old["id"])
            .values(generation=old["generation"] + 1, **values)
        )
        return str(old["id"]), True

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise database.unusable(self._engine, error) from error

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            with self._writer.begin() as connection:
                database.lock_writers(connection)
                yield connection
        except SQLAlchemyError as error:
            raise database.unusable(self._engine, error) from error
        finally:
            with self._cache_lock:
                self._cache.clear()

    def _record(self, action: str, **fields: object) -> None:
        """Append to the ledger inside the transaction: the last thing before it commits."""
        if self._ledger is not None:
            self._ledger.append({"action": action, "actor": self._actor, **fields})

    def _from_cache(self, digest: str) -> Principal | None:
        cached = self._cache.get(digest)
        if cached is None or time.monotonic() >= cached.until:
            return None
        if cached.expires_at is not None and time.time() >= cached.expires_at:
            return None
        return cached.principal

    def _remember(self, digest: str, principal: Principal, expires_at: int | None) -> None:
        with self._cache_lock:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            until = time.monotonic() + self._cache_seconds
            self._cache[digest] = _Cached(principal, until, expires_at)


def _now() -> int:
    return int(time.time())


def _refusal(row: RowMapping | dict[str, object]) -> Refusal | None:
    """Judge a token row joined with its owner's `generation` and `disabled_at`."""
    if row["disabled_at"] is not None:
        return "disabled"
    if row["revoked_at"] is not None or row["principal_generation"] != row["generation"]:
        return "revoked"
    expires_at = cast("int | None", row["expires_at"])
    if expires_at is not None and time.time() >= expires_at:
        return "expired"
    return None


def _find(connection: Connection, name: str) -> RowMapping:
    statement = select(principal_table).where(principal_table.c.name == name)
    row = connection.execute(statement).mappings().first()
    if row is None:
        raise TrustError(
            f"no user or service {name!r}", next_command=f"holdfast-trust user add {name}"
        )
    return row


def _team_id(connection: Connection, team: str) -> int:
    found = connection.execute(select(team_table.c.id).where(team_table.c.name == team)).scalar()
    if found is None:
        raise TrustError(f"no team {team!r}", next_command=f"holdfast-trust team add {team}")
    return int(found)
