"""Reserving what a request can cost at most, and settling on what it did."""

from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.question import Question


class Reservation:
    """What one request holds of its budgets until it is settled."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Response headers that tell the client what is left, and warn before the wall."""

    def counted(self, tokens: Tokens) -> None:
        """Take the count so far: the prompt's true size frees what was reserved above it."""

    def settle(self, tokens: Tokens, *, sent: bool) -> None:
        """Charge what was used and give back the rest; the first call counts.

        `sent` tells whether an upstream got the request: if not, nothing is charged; if it did
        and no count is known, all that was reserved is.
        """


class Budgets:
    """The budgets of a site, as far as this gateway holds leases on them."""

    async def reserve(self, question: Question) -> Reservation:
        """Reserve, or raise ApiError 429 that says which budget, how much, until when."""
        del question
        return Reservation()
