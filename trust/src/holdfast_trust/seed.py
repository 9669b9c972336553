"""Users, services, teams and tokens from a file: for one machine, tests and demonstrations.

teams: [research]
users:
  - {name: ada, teams: {research: write}, tokens: [{name: laptop, secret: hft_...}]}
  - {name: ben, teams: [research], tokens: [{secret: hft_..., verbs: [read], repositories: [a/b]}]}
services:
  - {name: serving-1, teams: [serving], tokens: [{name: default, secret: ...}]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Role
from holdfast_trust.scopes import Scope, checked_scope

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_trust.store import TrustStore


class SeedToken(BaseModel):
    """A token whose secret is given, at least 16 characters; its bounds are just those given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str = Field(min_length=16)
    name: str = "default"
    verbs: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()

    @property
    def scope(self) -> Scope:
        """The bounds; `TrustError` for what can be none."""
        return checked_scope(self.verbs, self.teams, self.repositories)


class SeedPrincipal(BaseModel):
    """A user or a service; a team that is named here exists.

    Teams are a list, which joins them with the role `read`, or team: role.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teams: dict[str, Role] | tuple[str, ...] = ()
    tokens: tuple[SeedToken, ...] = ()


class Seed(BaseModel):
    """A seed file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teams: tuple[str, ...] = ()
    users: tuple[SeedPrincipal, ...] = ()
    services: tuple[SeedPrincipal, ...] = ()


def read(path: Path) -> Seed:
    """Read a seed file; `TrustError` says which key is wrong. Secrets are never repeated."""
    try:
        return Seed.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrustError(
            "the seed file cannot be read", where=str(path), cause=str(error)
        ) from error
    except ValidationError as error:
        problems = (
            f"{'.'.join(str(part) for part in each['loc']) or 'the file'}: {each['msg']}"
            for each in error.errors(include_input=False)
        )
        raise TrustError(
            "the seed file has mistakes", where=str(path), cause="; ".join(problems)
        ) from None


def load(store: TrustStore, path: Path) -> bool:
    """Create the schema and all that the file names; return whether anything changed.

    Adds and rotates, never takes away: what is no longer in the file stays in the store.
    """
    return apply(store, read(path))


def apply(store: TrustStore, seed: Seed) -> bool:
    """Do as `load` with what was read already: services extend `Seed` by keys of their own."""
    changed = store.create_schema()
    named = [*seed.teams]
    for principal in (*seed.users, *seed.services):
        named.extend(principal.teams)
    for team in dict.fromkeys(named):
        changed |= store.add_team(team)
    for user in seed.users:
        changed |= store.add_user(user.name, user.teams)
    for service in seed.services:
        changed |= store.add_service(service.name, service.teams)
    for principal in (*seed.users, *seed.services):
        for token in principal.tokens:
            issued = store.issue_token(
                principal.name, token.name, secret=token.secret, rotate=True, scope=token.scope
            )
            changed |= issued.changed
    return changed
