"""Memberships that a site file gives, and that end when it gives them no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, update

from holdfast_trust.database import memberships
from holdfast_trust.database import principals as principal_table
from holdfast_trust.database import teams as team_table
from holdfast_trust.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection, RowMapping

SITE: Final = "site"


class SiteMembers(Transactions):
    """The part of the store that follows the site file; who came by a command stays."""

    def members_to_leave(self, named: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the (team, principal) that the site file gave and `named` lacks, sorted."""
        with self._read() as connection:
            rows = _all(connection)
        return sorted(
            (row["team"], row["principal"])
            for row in rows
            if row["origin"] == SITE and (row["team"], row["principal"]) not in named
        )

    def follow_site(self, named: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Take the memberships in `named` for the site file's; end those it gave before.

        All of `named` are members already. Returns the (team, principal) that ended, sorted.
        """
        ended = self.members_to_leave(named)
        with self._write() as change:
            for row in _all(change.connection):
                pair = (row["team"], row["principal"])
                here = (memberships.c.principal_id == row["principal_id"]) & (
                    memberships.c.team_id == row["team_id"]
                )
                if pair in named and row["origin"] != SITE:
                    change.connection.execute(update(memberships).where(here).values(origin=SITE))
                elif pair in ended:
                    change.connection.execute(delete(memberships).where(here))
                    change.record("team.member.remove", team=pair[0], principal=pair[1])
        return ended


def _all(connection: Connection) -> list[RowMapping]:
    """Return every membership with its names and origin."""
    statement = (
        select(
            memberships,
            team_table.c.name.label("team"),
            principal_table.c.name.label("principal"),
        )
        .join(team_table, team_table.c.id == memberships.c.team_id)
        .join(principal_table, principal_table.c.id == memberships.c.principal_id)
    )
    return list(connection.execute(statement).mappings())
