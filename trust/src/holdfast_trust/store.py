"""The identity database: whom a token proves, who there is, and what they were given."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from holdfast_trust import tokens
from holdfast_trust.agents import Agents
from holdfast_trust.database import tokens as token_table
from holdfast_trust.errors import TrustError
from holdfast_trust.issuance import IssuedToken
from holdfast_trust.members import Members
from holdfast_trust.principals import Principal
from holdfast_trust.proof import Refusal, held_tokens, holders, principal_of, refusal, timely
from holdfast_trust.site_members import SiteMembers
from holdfast_trust.switches import Switch, Switches

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import ColumnElement, RowMapping

    from holdfast_trust.ledger import Ledger

__all__ = ["LONGEST_CACHE_SECONDS", "IssuedToken", "Refusal", "TrustStore"]

LONGEST_CACHE_SECONDS = 1.0
_CACHE_ENTRIES = 4096
_AT_ONCE = 500  # ids in one query


class _Cached(NamedTuple):
    principal: Principal
    until: float  # monotonic seconds


class TrustStore(Members, SiteMembers, Agents, Switches):
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
        found = await self.examine_async(token)
        return found if isinstance(found, Principal) else None

    async def examine_async(self, token: str) -> Principal | Refusal:
        """Do as `examine`, answering from the cache at once and else in a thread."""
        cached = self._from_cache(tokens.digest(token))
        return await asyncio.to_thread(self.examine, token) if cached is None else cached

    def examine(self, token: str) -> Principal | Refusal:
        """Return whom `token` proves, or why it proves nobody."""
        digest = tokens.digest(token)
        cached = self._from_cache(digest)
        if cached:
            return cached
        asked_at = time.monotonic()
        rows = self._holders(token_table.c.digest == digest)
        if not rows:
            return "mistyped" if tokens.mistyped(token) else "unknown"
        judged = self._judged(rows)
        if isinstance(judged, Principal):
            self._remember(digest, judged, asked_at)
        return judged

    def recall(self, token_id: str) -> Principal | None:
        """Return whom the token of this id proves now, or None: for what it once asked for."""
        found = self.recall_all([token_id])[token_id]
        return found if isinstance(found, Principal) else None

    def recall_all(self, token_ids: Collection[str]) -> dict[str, Principal | Refusal]:
        """Return whom the tokens of these ids prove now, or why they prove nobody."""
        found: dict[str, list[RowMapping]] = {}
        wanted = sorted(token_ids)
        for at in range(0, len(wanted), _AT_ONCE):
            for row in self._holders(token_table.c.id.in_(wanted[at : at + _AT_ONCE])):
                found.setdefault(row["token_id"], []).append(row)
        # A token that was rotated has another id: what the old secret began ends with it.
        return {each: self._judged(found[each]) if each in found else "revoked" for each in wanted}

    def still_valid(self, principal: Principal) -> bool:
        """Say whether the proof behind `principal` still holds: for cutting long answers off."""
        found = self.recall(principal.token_id)
        return found is not None and (found.id, found.generations) == (
            principal.id,
            principal.generations,
        )

    def stopped_by(self, token: str) -> Switch | None:
        """Return the switch that bars a token, for telling its holder; None if none does."""
        row = self._held(token)
        if row is None:
            return None
        barred = {("key", row["token_id"]), (row["kind"], row["name"]), ("user", row["owner"])}
        found = (each for each in self.switches() if (each.kind, each.name) in barred)
        return next(found, None)

    def kept(self, token: str, principal: str, name: str) -> str | None:
        """Return the id of a token that is this principal's and of this name, and has not ended.

        One that is only stopped, or outside its hours, has not.
        """
        row = self._held(token)
        if row is None or (row["name"], row["token_name"]) != (principal, name):
            return None
        ended = refusal(row, self._clock.now()) not in {None, "stopped", "hours"}
        return None if ended else str(row["token_id"])

    def _held(self, token: str) -> RowMapping | None:
        statement = held_tokens().where(token_table.c.digest == tokens.digest(token))
        with self._read() as connection:
            return connection.execute(statement).mappings().first()

    def forget(self) -> None:
        """Forget whom tokens proved: for who has seen that something changed."""
        self._changed()

    def _judged(self, rows: Sequence[RowMapping]) -> Principal | Refusal:
        why = refusal(rows[0], self._clock.now())
        return principal_of(rows) if why is None else why

    def _holders(self, condition: ColumnElement[bool]) -> Sequence[RowMapping]:
        with self._read() as connection:
            return connection.execute(holders().where(condition)).mappings().all()

    def _from_cache(self, digest: str) -> Principal | None:
        cached = self._cache.get(digest)
        if cached is None or time.monotonic() >= cached.until:
            return None
        return None if timely(cached.principal, self._clock.now()) else cached.principal

    def _remember(self, digest: str, principal: Principal, asked_at: float) -> None:
        with self._cache_lock:
            if len(self._cache) >= _CACHE_ENTRIES:
                self._cache.clear()
            # From before the question: what a slow database answers may be old already.
            self._cache[digest] = _Cached(principal, asked_at + self._cache_seconds)

    def _changed(self) -> None:
        with self._cache_lock:
            self._cache.clear()
