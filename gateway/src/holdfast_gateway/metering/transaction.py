"""The life of one request, from the decision on: what it will leave in the table and the ledger."""

import time
from typing import TYPE_CHECKING, Literal

from holdfast_gateway.metering.record import REFUSED, Closing, Opening, event_of, row_of
from holdfast_gateway.metering.recorder import Item, Recorder
from holdfast_gateway.metering.tariff import cost
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.metering.usage import State
from holdfast_gateway.question import Question

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_gateway.metering.spool import Ticket

CLIENT_GONE = 499

_LONGEST_CODE = 64
_LONGEST_REPLICA = 256


class Transaction:
    """Collects what is known about a request and hands it to the recorder, once."""

    def __init__(self, recorder: Recorder, question: Question) -> None:
        self._recorder = recorder
        self._question = question
        self._first: float | None = None
        self._last = 0.0
        self._opening: Opening | None = None
        self._ticket: Ticket | None = None
        self._ended = False
        self.tokens = Tokens()
        self.sent = False
        self.waited_seconds: float | None = None
        self.replica: str | None = None
        """Which replica's answer the client got, as host:port; None while it is not known."""
        self.attempts = 0
        """How often the request was sent to an upstream: hedges and resumptions included."""
        self.hedged = False
        self.resumed = False
        self.on_first_token: Callable[[], None] | None = None
        """Whom else to tell of the first part of the answer, once."""
        self.on_count: Callable[[Tokens], None] | None = None
        """Whom to tell how long the prompt is, once it is known."""
        self.on_whole: Callable[[], None] | None = None
        """Whom to tell that all of an answer is here and counted, before its client reads it."""
        self.error_code: str | None = None
        """The code the client was told, where the answer was an error."""

    def begin(self) -> None:
        """Note that the request is let through, where no killed gateway takes it along."""
        if self._recorder.spool is not None and self._ticket is None:
            self._ticket = self._recorder.spool.begin(self._opened())

    def first_token(self) -> None:
        """Note that a part of the answer is there; the first and the last call count."""
        self._last = time.perf_counter()
        if self._first is None:
            self._first = self._last
            if self.on_first_token is not None:
                self.on_first_token()

    def count(self, tokens: Tokens) -> None:
        """Tell of the first count that has the prompt's length."""
        if tokens.prompt is not None and self.on_count is not None:
            self.on_count(tokens)
            self.on_count = None

    def refuse(self, status: int, code: str | None = None) -> None:
        """Record a request that was not let through: an event, no usage."""
        self._close(REFUSED, status, code)

    def end(self, state: State, status: int, code: str | None = None) -> None:
        """Record how the request ended; the first call stands."""
        self._close(state, status, code)

    def _close(self, state: State | Literal["refused"], status: int, code: str | None) -> None:
        if self._ended:
            return
        self._ended = True
        self.error_code = code or self.error_code
        opening, closing = self._opened(), self._closed(state, status)
        recorder = self._recorder
        self.begin()
        if self._ticket is not None and recorder.spool is not None:
            recorder.spool.end(self._ticket, closing)
        recorder.put(Item(event_of(opening, closing), row_of(opening, closing), self._ticket))
        recorder.meters.ended(opening, closing, hedged=self.hedged, resumed=self.resumed)

    def _opened(self) -> Opening:
        if self._opening is None:
            question = self._question
            principal, model = question.principal, question.model
            self._opening = Opening(
                request_id=question.request_id,
                time=question.time.isoformat(),
                principal=principal.name,
                principal_kind=principal.kind,
                owner=principal.owner,
                token=principal.token_id,
                team=question.team,
                session=question.session,
                gateway=self._recorder.gateway,
                model=question.call.model,
                revision=None if model is None else model.revision,
                endpoint=question.call.endpoint,
                stream=question.call.stream,
                allowed=question.decision.allowed,
                policies=question.decision.policies,
                policy_version=question.decision.policy_version,
                reason=question.decision.reason,
            )
        return self._opening

    def _closed(self, state: State | Literal["refused"], status: int) -> Closing:
        tokens, started, first = self.tokens, self._question.started, self._first
        ttft = itl = None
        if first is not None:
            ttft = round((first - started) * 1000, 3)
            if tokens.completion is not None and tokens.completion > 1:
                itl = round((self._last - first) * 1000 / (tokens.completion - 1), 3)
        waited = self.waited_seconds
        model = self._question.model
        tariff = None if model is None or state == REFUSED else model.tariff
        known = tokens.prompt is not None and tokens.completion is not None
        return Closing(
            status=status,
            state=state,
            error_code=_short(self.error_code, _LONGEST_CODE),
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            completion_tokens=tokens.completion,
            queue_ms=None if waited is None else round(waited * 1000, 3),
            ttft_ms=ttft,
            itl_ms=itl,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
            replica=_short(self.replica, _LONGEST_REPLICA),
            attempts=self.attempts,
            cost=cost(tokens, tariff) if tariff is not None and known else None,
            currency=None if tariff is None else self._recorder.currency,
        )


def _short(text: str | None, longest: int) -> str | None:
    """Return what an upstream said as a table takes it: a replica's words are not ours."""
    if text is None:
        return None
    return text[:longest] if text.isprintable() else "unprintable"
