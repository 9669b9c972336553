"""The life of one request, from the decision on: what it will leave in the table and the ledger."""

import time
from datetime import UTC, datetime

from holdfast_gateway.calls import Call
from holdfast_gateway.recorder import Item, Recorder
from holdfast_gateway.tokens import Tokens
from holdfast_gateway.usage import State, UsageRow
from holdfast_trust.decisions import Decision
from holdfast_trust.principals import Principal

CLIENT_GONE = 499


class Transaction:
    """Collects what is known about a request and hands it to the recorder, once."""

    def __init__(  # noqa: PLR0913  # all that identifies a request, by name
        self,
        recorder: Recorder,
        *,
        request_id: str,
        started: float,
        principal: Principal,
        team: str | None,
        call: Call,
        decision: Decision,
    ) -> None:
        self._recorder = recorder
        self._request_id = request_id
        self._time = datetime.now(UTC)
        self._started = started
        self._principal = principal
        self._team = team
        self._call = call
        self._decision = decision
        self._first_byte: float | None = None
        self._ended = False
        self.tokens = Tokens()

    def first_token(self) -> None:
        """Note that the first part of the answer is there; only the first call counts."""
        if self._first_byte is None:
            self._first_byte = time.perf_counter()

    def refuse(self, status: int) -> None:
        """Record a request that was not let through: an event, no usage."""
        self._recorder.put(Item(self._event(status, "refused")))

    def end(self, state: State, status: int) -> None:
        """Record how the request ended; the first call stands."""
        if self._ended:
            return
        self._ended = True
        now = time.perf_counter()
        ttft = None if self._first_byte is None else self._first_byte - self._started
        row = UsageRow(
            request_id=self._request_id,
            time=self._time,
            principal=self._principal.name,
            principal_kind=self._principal.kind,
            team=self._team,
            model=self._call.model,
            endpoint=self._call.endpoint,
            stream=self._call.stream,
            status=status,
            state=state,
            prompt_tokens=self.tokens.prompt,
            cached_tokens=self.tokens.cached,
            completion_tokens=self.tokens.completion,
            ttft_ms=None if ttft is None else round(ttft * 1000, 3),
            duration_ms=round((now - self._started) * 1000, 3),
        )
        self._recorder.put(Item(self._event(status, state), row))

    def _event(self, status: int, state: str) -> dict[str, object]:
        """Describe the request for the ledger: never what was asked or answered."""
        return {
            "action": "model.infer",
            "request_id": self._request_id,
            "began": self._time.isoformat(timespec="milliseconds"),
            "principal": self._principal.name,
            "principal_kind": self._principal.kind,
            "token": self._principal.token_id,
            "team": self._team,
            "model": self._call.model,
            "endpoint": self._call.endpoint,
            "stream": self._call.stream,
            "allowed": self._decision.allowed,
            "policies": list(self._decision.policies),
            "policy_version": self._decision.policy_version,
            "reason": self._decision.reason,
            "status": status,
            "state": state,
            "prompt_tokens": self.tokens.prompt,
            "cached_tokens": self.tokens.cached,
            "completion_tokens": self.tokens.completion,
        }
