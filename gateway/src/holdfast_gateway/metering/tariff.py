"""What tokens cost: prices of a model, and exact sums in whole millionths of the currency."""

from decimal import Decimal
from functools import cached_property
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

    @cached_property
    def pico(self) -> tuple[int, int, int]:
        """Return the prices of one token, prompt, cached and completion, in parts of a micro-unit.

        A price for a million tokens is as many micro-units for one.
        """
        cached = self.prompt if self.cached is None else self.cached
        return int(self.prompt * _PICO), int(cached * _PICO), int(self.completion * _PICO)


def cost(tokens: Tokens, tariff: Tariff) -> int:
    """Return what tokens cost in micro-units (millionths of the currency), rounded up.

    A count that is unknown costs nothing here: who must not give away has to ask before.
    """
    of_prompt, of_cached, of_completion = tariff.pico
    prompt = tokens.prompt or 0
    cached = min(tokens.cached or 0, prompt)
    pico = (
        (prompt - cached) * of_prompt
        + cached * of_cached
        + (tokens.completion or 0) * of_completion
    )
    return -(-pico // _PICO)


def most(prompt: int, completion: int, tariff: Tariff) -> int:
    """Return what so many tokens cost at most, whether some are found in the cache or none."""
    of_prompt, of_cached, of_completion = tariff.pico
    return -(-(prompt * max(of_prompt, of_cached) + completion * of_completion) // _PICO)
