"""Letting requests through to a pool: at once, in turn, or not now."""

from holdfast_gateway.question import Question


class Place:
    """A request's place among those being served; leave it when the answer has ended."""

    waited_seconds: float = 0.0

    def leave(self) -> None:
        """Give the place up; the first call counts."""


class Fairness:
    """The turnstile in front of each pool."""

    def steering(self, question: Question) -> dict[str, object]:
        """Return what the gateway itself puts into the body: priority, cache_salt."""
        del question
        return {}

    async def admit(self, question: Question) -> Place:
        """Wait for a place; raise ApiError 429 with an honest Retry-After if it would take long."""
        del question
        return Place()
