"""The identity database: whom a token proves, who there is, and what they were given."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, cast

from sqlalchemy import exists, select

from holdfast_trust import tokens
from holdfast_trust.database import memberships
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.database import tokens as token_table
from holdfast_trust.errors import TrustError
from holdfast_trust.issuance import Issuance, IssuedToken
from holdfast_trust.members import Members
from holdfast_trust.principals import Kind, Principal, checked_role
from holdfast_trust.scopes import read_scope
from holdfast_trust.site_members import SiteMembers
from holdfast_trust.transactions import Refusal, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, RowMapping

    from holdfast_trust.ledger import Ledger

__all__ = ["LONGEST_CACHE_SECONDS", "IssuedToken", "Refusal", "TrustStore"]

LONGEST_CACHE_SECONDS = 1.0
_CACHE_ENTRIES = 4096


# A team of the user's own name (made before names were kept apart) owns what bears it.
_namesake = exists().where(team_table.alias("namesake").c.name == principal_table.c.name)


class _Cached(NamedTuple):
    principal: Principal
    until: float  # monotonic seconds
    expires_at: int | None  # Unix seconds


class TrustStore(Members, SiteMembers, Issuance):
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
        super().__init__(url, ledger, actor)
        self._cache_seconds = cache_seconds
        self._cache: dict[str, _Cached] = {}
        self._cache_lock = threading.Lock()

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
        rows = self._holders(token_table.c.digest == digest)
        if not rows:
            return "mistyped" if tokens.mistyped(token) else "unknown"
        row = rows[0]
        reason = refusal(row, self._clock.now())
        if reason:
            return reason
        principal = _principal(rows)
        self._remember(digest, principal, row["expires_at"])
        return principal

    def recall(self, token_id: str) -> Principal | None:
        """Return whom the token of this id proves now, or None: for what it once asked for."""
        rows = self._holders(token_table.c.id == token_id)
        return None if not rows or refusal(rows[0], self._clock.now()) else _principal(rows)

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
        if row is None:
            return False
        judged = {**row, "generation": row["owner_generation"]}
        return refusal(judged, self._clock.now()) is None

    def _holders(self, condition: ColumnElement[bool]) -> Sequence[RowMapping]:
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
                token_table.c.created_at,
                token_table.c.scope,
                team_table.c.name.label("team"),
                memberships.c.role,
                _namesake.label("namesake"),
            )
            .join(principal_table, principal_table.c.id == token_table.c.principal_id)
            .outerjoin(memberships, memberships.c.principal_id == principal_table.c.id)
            .outerjoin(team_table, team_table.c.id == memberships.c.team_id)
            .where(condition)
        )
        with self._read() as connection:
            return connection.execute(statement).mappings().all()

    def _from_cache(self, digest: str) -> Principal | None:
        cached = self._cache.get(digest)
        if cached is None or time.monotonic() >= cached.until:
            return None
        if cached.expires_at is not None and self._clock.now() >= cached.expires_at:
            return None
        return cached.principal

    def _remember(self, digest: str, principal: Principal, expires_at: int | None) -> None:
        with self._cache_lock:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            until = time.monotonic() + self._cache_seconds
            self._cache[digest] = _Cached(principal, until, expires_at)

    def _changed(self) -> None:
        with self._cache_lock:
            self._cache.clear()


def _principal(rows: Sequence[RowMapping]) -> Principal:
    row = rows[0]
    scope = read_scope(row["scope"])
    roles = {each["team"]: checked_role(each["role"]) for each in rows if each["team"] is not None}
    teams = sorted(filter(scope.counts, roles))
    if row["kind"] == "user" and not row["namesake"]:
        roles[row["name"]] = "admin"
    return Principal(
        id=row["id"],
        kind=cast("Kind", row["kind"]),
        name=row["name"],
        teams=tuple(teams),
        token_id=row["token_id"],
        generations=(row["generation"], row["token_generation"]),
        roles={name: role for name, role in roles.items() if scope.counts(name)},
        scope=scope,
    )
