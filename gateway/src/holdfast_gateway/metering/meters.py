"""What the gateway tells Prometheus: sums over all requests, and never who asked."""

from collections.abc import Iterator

from holdfast_gateway.metering.exposition import Counter, Gauge, Gauges, Histogram
from holdfast_gateway.metering.record import REFUSED, Closing, Opening

_SECONDS = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 30, 60, 120, 300)
_BETWEEN_TOKENS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)


class Meters:
    """The gateway's own numbers. Counted on the event loop, one call for each request.

    Labels are the models, teams and codes of the site's own making: no user, key or session, whose
    number nothing bounds.
    """

    def __init__(self) -> None:
        self._requests = Counter(
            "holdfast_gateway_requests_total",
            "Requests let through, by how they ended.",
            ("model", "team", "state", "status"),
        )
        self._tokens = Counter(
            "holdfast_gateway_tokens_total",
            "Tokens counted: prompt (cached among them), cached, completion.",
            ("model", "team", "kind"),
        )
        self._uncounted = Counter(
            "holdfast_gateway_uncounted_requests_total",
            "Requests let through whose tokens are not known.",
            ("model",),
        )
        self._refused = Counter(
            "holdfast_gateway_refused_total",
            "Requests refused after their token was known: policy, budget, full.",
            ("model", "code"),
        )
        self._ttft = Histogram(
            "holdfast_gateway_time_to_first_token_seconds",
            "From the request to the first token of a stream, the wait for a place included.",
            ("model",),
            _SECONDS,
        )
        self._itl = Histogram(
            "holdfast_gateway_inter_token_latency_seconds",
            "Mean time between the tokens of one stream.",
            ("model",),
            _BETWEEN_TOKENS,
        )
        self._queue = Histogram(
            "holdfast_gateway_queue_time_seconds",
            "Wait for a place, in the gateway.",
            ("model",),
            _SECONDS,
        )
        self._hedged = Counter(
            "holdfast_gateway_hedged_total",
            "Requests asked a second time because the first token was late.",
            ("model",),
        )
        self._resumed = Counter(
            "holdfast_gateway_resumed_total",
            "Streams that went on from another replica.",
            ("model",),
        )
        self._gauges: list[Gauge | Gauges] = []

    def watch(self, gauge: Gauge | Gauges) -> None:
        """Show one more number."""
        self._gauges.append(gauge)

    def ended(self, opening: Opening, closing: Closing, *, hedged: bool, resumed: bool) -> None:
        """Count one request that has ended or was refused."""
        model, team = opening.model, opening.team or ""
        if closing.state == REFUSED:
            # The name of a model that does not exist is whatever a client makes up.
            known = model if opening.allowed else ""
            self._refused.add((known, closing.error_code or str(closing.status)))
            return
        self._requests.add((model, team, closing.state, str(closing.status)))
        if closing.completion_tokens is None:
            self._uncounted.add((model,))
        else:
            self._tokens.add((model, team, "completion"), closing.completion_tokens)
        if closing.prompt_tokens is not None:
            self._tokens.add((model, team, "prompt"), closing.prompt_tokens)
        if closing.cached_tokens:
            self._tokens.add((model, team, "cached"), closing.cached_tokens)
        if closing.ttft_ms is not None:
            self._ttft.observe((model,), closing.ttft_ms / 1000)
        if closing.itl_ms is not None:
            self._itl.observe((model,), closing.itl_ms / 1000)
        if closing.queue_ms is not None:
            self._queue.observe((model,), closing.queue_ms / 1000)
        if hedged:
            self._hedged.add((model,))
        if resumed:
            self._resumed.add((model,))

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        every: tuple[Counter | Histogram | Gauge | Gauges, ...] = (
            self._requests,
            self._tokens,
            self._uncounted,
            self._refused,
            self._ttft,
            self._itl,
            self._queue,
            self._hedged,
            self._resumed,
            *self._gauges,
        )
        for each in every:
            yield from each.lines()
