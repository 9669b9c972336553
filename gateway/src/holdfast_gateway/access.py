"""Who asks, and whether they may: trust's tokens and decisions, refused in the API's words."""

import asyncio
import logging

from holdfast_gateway.api.errors import ApiError, invalid_api_key, unavailable
from holdfast_gateway.api.stopping import outside_hours, stopped
from holdfast_gateway.config import Model, Trust
from holdfast_trust.decisions import Decision, Decisions, Resource
from holdfast_trust.errors import TrustError
from holdfast_trust.principals import Principal
from holdfast_trust.seed import load as load_seed
from holdfast_trust.store import TrustStore

log = logging.getLogger("holdfast.gateway")

_INFER = "model:infer"
_LONGEST_TOKEN = 1024
_MOST_DECISIONS = 4096
_NOWHERE = {"jurisdiction": "none", "classification": "none"}


class Access:
    """The gateway's door. Open it after a fork: it holds database connections."""

    def __init__(self, trust: Trust) -> None:
        self.store = TrustStore(trust.database)
        if trust.seed is not None:
            self.store.create_schema()
            load_seed(self.store, trust.seed)
        self._decisions = Decisions()
        # A decision rests on its arguments alone, and asking Cedar costs more than all the rest.
        self._decided: dict[tuple[Principal, str], Decision] = {}

    def check(self) -> None:
        """Raise TrustError if tokens cannot be checked."""
        self.store.authenticate("nobody")

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return whom an Authorization header proves.

        Raises 401, 403 for who is stopped or outside their hours, 503 when it cannot be known.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not 0 < len(token) <= _LONGEST_TOKEN:
            raise invalid_api_key()
        try:
            found = await self.store.examine_async(token)
            switch = None
            if found == "stopped":
                switch = await asyncio.to_thread(self.store.stopped_by, token)
        except TrustError as error:
            log.error("tokens cannot be checked: %s", error)  # noqa: TRY400  # said by the error itself
            raise unavailable(
                "API keys cannot be checked now. Try again in a moment.",
                code="identity_unavailable",
            ) from error
        if switch is not None:
            raise stopped(switch)
        if found == "hours":
            raise outside_hours()
        if not isinstance(found, Principal):
            raise invalid_api_key()
        return found

    def may_infer(self, principal: Principal, model_id: str, model: Model | None) -> Decision:
        """Decide whether a principal may use a model.

        One that does not exist is decided on like one of no team: a refusal then takes the same
        path, and the same time, whether there is something to hide or not.
        """
        asked = (principal, model_id)
        known = self._decided.get(asked)
        if known is not None:
            return known
        resource = Resource(
            kind="model",
            id=model_id,
            team_readers=model.teams if model else (),
            labels=model.labels.as_dict() if model else _NOWHERE,
        )
        if len(self._decided) >= _MOST_DECISIONS:
            self._decided.clear()
        decision = self._decided[asked] = self._decisions.decide(principal, _INFER, resource)
        return decision

    def close(self) -> None:
        """Close the connections."""
        self.store.close()


def team_of(principal: Principal, model: Model, wanted: str | None) -> str | None:
    """Return the team a request is counted for: the one the client names, else the first by name.

    Only teams of the principal's that may use the model count; raise ApiError 403 for another.
    """
    teams = set(principal.teams) & set(model.teams)
    if not wanted:
        return min(teams, default=None)
    if wanted not in teams:
        raise ApiError(
            403,
            f"You cannot use '{model.id}' for the team '{wanted}' (OpenAI-Organization). Leave the "
            f"header out, or name one of: {', '.join(sorted(teams)) or 'none'}.",
            code="not_your_team",
        )
    return wanted
