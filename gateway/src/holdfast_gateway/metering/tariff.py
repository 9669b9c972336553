"""What tokens cost: prices of a model, and exact sums in whole millionths of the currency."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from holdfast_gateway.metering.tokens import Tokens

_PICO = 1_000_000  # parts of a micro-unit: prices have six decimals at most

Price = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]


class Tariff(BaseModel):
    """Prices of one model, each for a million tokens, in the site's currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Price = Field(description="Price of a million prompt tokens.")
    cached: Price | None = Field(
        default=None,
        description="Price of a million prompt tokens found in the prefix cache; "
        "without it, that of other prompt tokens.",
    )
    completion: Price = Field(description="Price of a million tokens generated.")


def cost(tokens: Tokens, tariff: Tariff) -> int:
    """Return what tokens cost in micro-units (millionths of the currency), rounded up.

    A price for a million tokens is as many micro-units for one. A count that is unknown costs
    nothing here: who must not give away has to ask before.
    """
    prompt = tokens.prompt or 0
    cached = min(tokens.cached or 0, prompt)
    of_cached = tariff.prompt if tariff.cached is None else tariff.cached
    pico = (
        (prompt - cached) * _pico(tariff.prompt)
        + cached * _pico(of_cached)
        + (tokens.completion or 0) * _pico(tariff.completion)
    )
    return -(-pico // _PICO)


def most(prompt: int, completion: int, tariff: Tariff) -> int:
    """Return what so many tokens cost at most, whether some are found in the cache or none."""
    uncached = cost(Tokens(prompt, 0, completion), tariff)
    return max(uncached, cost(Tokens(prompt, prompt, completion), tariff))


def _pico(price: Decimal) -> int:
    return int(price * _PICO)
