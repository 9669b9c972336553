"""The kill switches: one order ends what a thing does and has in flight, and holds until lifted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

from sqlalchemy import delete, insert, select, update

from holdfast_trust.database import schema_version, switches
from holdfast_trust.database import tokens as token_table
from holdfast_trust.errors import TrustError
from holdfast_trust.transactions import Transactions, find_principal, find_team, now

if TYPE_CHECKING:
    from sqlalchemy import Connection

SwitchKind = Literal["agent", "key", "user", "service", "team", "model"]
KINDS: Final[tuple[SwitchKind, ...]] = get_args(SwitchKind)

_LONGEST_REASON: Final = 500
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,96}/[A-Za-z0-9._-]{1,159}")
"""How a model is named that can be stopped."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One that was thrown: what is stopped, since when (Unix seconds), by whom and why."""

    kind: SwitchKind
    name: str
    since: int
    by: str
    reason: str
    lifted_at: int | None = None

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "since_at": self.since,
            "by": self.by,
            "reason": self.reason,
            "lifted_at": self.lifted_at,
        }


class Switches(Transactions):
    """The part of the store that stops things."""

    def kill(self, kind: SwitchKind, name: str, reason: str = "") -> bool:
        """Stop something until `lift`; return whether it was not stopped yet.

        A key is named by its token's id. Nobody here knows which models are served: a model need
        only have the form of one. `reason` is told to those who are stopped.
        """
        if len(reason) > _LONGEST_REASON or not reason.isprintable():
            raise TrustError(
                "the reason cannot be told to those who are stopped",
                cause=f"it has more than {_LONGEST_REASON} characters or some that are not "
                "printable",
            )
        with self._write() as change:
            _check(change.connection, kind, name)
            here = (switches.c.kind == kind) & (switches.c.name == name)
            known = select(switches.c.lifted_at).where(here)
            old = change.connection.execute(known).first()
            if old is not None and old.lifted_at is None:
                return False
            change.connection.execute(delete(switches).where(here))
            change.connection.execute(
                insert(switches).values(
                    kind=kind, name=name, since=now(), by_whom=self._actor, reason=reason
                )
            )
            change.record("kill.throw", kind=kind, name=name, reason=reason)
        return True

    def lift(self, kind: SwitchKind, name: str) -> bool:
        """Let something go on; return whether it was stopped. What was ended stays ended."""
        with self._write() as change:
            _check(change.connection, kind, name, lifting=True)
            lifted = change.connection.execute(
                update(switches)
                .where(
                    switches.c.kind == kind, switches.c.name == name, switches.c.lifted_at.is_(None)
                )
                .values(lifted_at=now())
            )
            if not lifted.rowcount:
                return False
            change.record("kill.lift", kind=kind, name=name)
        return True

    def switches(self, *, lifted: bool = False) -> list[Switch]:
        """Return what is stopped, by kind and name; with `lifted` also what was at some time."""
        statement = select(switches).order_by(switches.c.kind, switches.c.name)
        if not lifted:
            statement = statement.where(switches.c.lifted_at.is_(None))
        with self._read() as connection:
            rows = connection.execute(statement).mappings().all()
        return [
            Switch(
                kind=cast("SwitchKind", row["kind"]),
                name=row["name"],
                since=row["since"],
                by=row["by_whom"],
                reason=row["reason"],
                lifted_at=row["lifted_at"],
            )
            for row in rows
        ]

    def changes(self) -> int:
        """Return a number that is another one after every change: for watching at little cost."""
        with self._read() as connection:
            return int(connection.execute(select(schema_version.c.changes)).scalar_one())


def _check(connection: Connection, kind: SwitchKind, name: str, *, lifting: bool = False) -> None:
    """Raise `TrustError` for what is not there: an order with a typing mistake stops nothing."""
    if kind == "team":
        find_team(connection, name)
    elif kind == "model":
        if not MODEL_NAME.fullmatch(name):
            raise TrustError(
                f"{name!r} is no model", cause="a model is named as clients name it: org/name"
            )
    elif kind == "key":
        known = select(token_table.c.id).where(token_table.c.id == name)
        # A token that was rotated since has another id; its switch can be lifted all the same.
        if not lifting and connection.execute(known).first() is None:
            raise TrustError(
                f"no token {name!r}",
                cause="a key is named by its token's id, not by its secret",
                next_command="holdfast-trust token list",
            )
    else:
        found = find_principal(connection, name)
        if found["kind"] != kind:
            raise TrustError(
                f"{name} is no {kind}",
                next_command=f"holdfast-trust kill {found['kind']} {name}",
            )
