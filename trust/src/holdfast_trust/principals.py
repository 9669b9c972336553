"""Who acts: a user or a service, as a token proves it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from holdfast_trust.errors import TrustError

Kind = Literal["user", "service"]
"""Agents come with their own issue: nothing here would treat them differently yet."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven identity for the length of one request.

    `teams` is sorted. `generations` is (principal's, token's) at the time of proof: what
    `TrustStore.still_valid` compares, so that long answers can be cut off after a revocation.
    """

    id: int
    kind: Kind
    name: str
    teams: tuple[str, ...] = ()
    token_id: str = ""
    generations: tuple[int, int] = (0, 0)


def checked_name(name: str, what: str) -> str:
    """Return `name` if it may name a user, service, team or token; raise `TrustError` if not."""
    if not _NAME.fullmatch(name):
        raise TrustError(
            f"{name!r} cannot name a {what}",
            cause="a name is 1 to 63 of a-z 0-9 . _ - and starts and ends with a letter or digit",
        )
    return name
