"""The life of one request, from the decision on: what it will leave in the table and the ledger."""

import time

from holdfast_gateway.metering.recorder import Item, Recorder
from holdfast_gateway.metering.tokens import Tokens
from holdfast_gateway.metering.usage import State, UsageRow
from holdfast_gateway.question import Question

CLIENT_GONE = 499


class Transaction:
    """Collects what is known about a request and hands it to the recorder, once."""

    def __init__(self, recorder: Recorder, question: Question) -> None:
        self._recorder = recorder
        self._question = question
        self._first_byte: float | None = None
        self._ended = False
        self.tokens = Tokens()
        self.sent = False
        self.waited_seconds = 0.0
        self.replica: str | None = None
        """Which replica's answer the client got, as host:port; None while it is not known."""
        self.attempts = 0
        """How often the request was sent to an upstream: hedges and resumptions included."""
        self.hedged = False
        self.resumed = False
        self.error_code: str | None = None
        """The code the client was told, where the answer was an error."""

    def first_token(self) -> None:
        """Note that the first part of the answer is there; only the first call counts."""
        if self._first_byte is None:
            self._first_byte = time.perf_counter()

    def refuse(self, status: int, code: str | None = None) -> None:
        """Record a request that was not let through: an event, no usage."""
        if self._ended:
            return
        self._ended = True
        self.error_code = code
        self._recorder.put(Item(self._event(status, "refused")))

    def end(self, state: State, status: int, code: str | None = None) -> None:
        """Record how the request ended; the first call stands."""
        if self._ended:
            return
        self._ended = True
        self.error_code = code
        question = self._question
        now = time.perf_counter()
        ttft = None if self._first_byte is None else self._first_byte - question.started
        row = UsageRow(
            request_id=question.request_id,
            time=question.time,
            principal=question.principal.name,
            principal_kind=question.principal.kind,
            team=question.team,
            model=question.call.model,
            endpoint=question.call.endpoint,
            stream=question.call.stream,
            status=status,
            state=state,
            prompt_tokens=self.tokens.prompt,
            cached_tokens=self.tokens.cached,
            completion_tokens=self.tokens.completion,
            ttft_ms=None if ttft is None else round(ttft * 1000, 3),
            duration_ms=round((now - question.started) * 1000, 3),
        )
        self._recorder.put(Item(self._event(status, state), row))

    def _event(self, status: int, state: str) -> dict[str, object]:
        """Describe the request for the ledger: never what was asked or answered."""
        question = self._question
        return {
            "action": "model.infer",
            "request_id": question.request_id,
            "began": question.time.isoformat(timespec="milliseconds"),
            "principal": question.principal.name,
            "principal_kind": question.principal.kind,
            "token": question.principal.token_id,
            "team": question.team,
            "model": question.call.model,
            "endpoint": question.call.endpoint,
            "stream": question.call.stream,
            "allowed": question.decision.allowed,
            "policies": list(question.decision.policies),
            "policy_version": question.decision.policy_version,
            "reason": question.decision.reason,
            "status": status,
            "state": state,
            "prompt_tokens": self.tokens.prompt,
            "cached_tokens": self.tokens.cached,
            "completion_tokens": self.tokens.completion,
        }
