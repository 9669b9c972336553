"""The endpoints that ask a model: who, what, may they, then the answer."""

import time
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from holdfast_gateway.access import team_of
from holdfast_gateway.api.body import read_body
from holdfast_gateway.api.calls import parse
from holdfast_gateway.api.credentials import authorization_of
from holdfast_gateway.api.endpoints import spelled
from holdfast_gateway.api.errors import (
    ApiError,
    invalid,
    model_not_found,
    unavailable,
    unknown_url,
)
from holdfast_gateway.chain.answer import Answer
from holdfast_gateway.client import Ended
from holdfast_gateway.metering.transaction import CLIENT_GONE, Transaction
from holdfast_gateway.question import Question
from holdfast_gateway.services import Services

_LONGEST_SESSION = 128


class Inference:
    """One endpoint, as an ASGI application."""

    def __init__(self, endpoint: str, services: Services) -> None:
        self._endpoint = endpoint
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; what is refused is raised as ApiError."""
        started = time.perf_counter()
        services = self._services
        request = Request(scope, receive)
        if request.method != "POST" or not spelled(self._endpoint, scope):
            raise unknown_url(request.method, request.url.path)
        if services.recorder.full:
            raise unavailable(
                "Usage cannot be recorded now, so nothing is served. Try again in a moment.",
                code="metering_unavailable",
            )
        principal = await services.access.authenticate(
            authorization_of(self._endpoint, request.headers)
        )
        # Not kept: an answer may take minutes, and the request as it was understood is kept too.
        call = parse(self._endpoint, await read_body(request, services.config.limits))
        model = services.models.get(call.model)
        decision = services.access.may_infer(principal, call.model, model)
        seen = model if decision.allowed else None
        team = request.headers.get("openai-organization")
        question = Question(
            request_id=request.state.request_id,
            started=started,
            time=datetime.now(UTC),
            principal=principal,
            team=None if seen is None else team_of(principal, seen, team),
            session=_session(request),
            call=call,
            model=seen,
            decision=decision,
        )
        transaction = Transaction(services.recorder, question)
        if seen is None:
            transaction.refuse(404, "model_not_found")
            raise model_not_found(call.model)
        try:
            services.switches.check(question)
        except ApiError as error:
            transaction.refuse(error.status, error.code)
            raise
        answer = Answer(
            upstream=services.upstream,
            base=seen.pool_of(question.team).upstream,
            question=question,
            steering={**services.fairness.steering(question), **services.budgets.limits(question)},
            limits=services.config.limits,
            transaction=transaction,
            send=send,
        )
        try:
            ended = await services.inflight.run(
                question, receive, self._give(question, transaction, answer)
            )
            if ended is Ended.CLIENT_GONE:
                transaction.end("aborted", CLIENT_GONE)
            elif isinstance(ended, ApiError):
                await answer.fail(ended)
        finally:
            # Reached without an end only through a defect of ours: it is counted all the same.
            transaction.end("error", 500)

    async def _give(self, question: Question, transaction: Transaction, answer: Answer) -> None:
        """Reserve, wait for a place, answer; whatever happens, give back what was held."""
        try:
            reservation = await self._services.budgets.reserve(question)
        except ApiError as error:
            transaction.refuse(error.status, error.code)
            raise
        try:
            place = await self._services.fairness.admit(question)
        except ApiError as error:
            transaction.refuse(error.status, error.code)
            reservation.settle(transaction.tokens, sent=False)
            raise
        except BaseException:  # the client has gone, or we are being stopped
            reservation.settle(transaction.tokens, sent=False)
            raise

        def release() -> None:
            place.leave()
            reservation.settle(transaction.tokens, sent=transaction.sent)

        try:
            transaction.waited_seconds = place.waited_seconds
            transaction.on_first_token = place.answered
            transaction.on_count = reservation.counted
            transaction.on_whole = release
            transaction.begin()
            answer.headers = reservation.headers
            await answer.give()
        finally:
            release()


def _session(request: Request) -> str | None:
    """Return the client's name for a transaction of several requests."""
    session = request.headers.get("x-session-id")
    if session is not None and not (session.isprintable() and len(session) <= _LONGEST_SESSION):
        raise invalid(
            f"X-Session-Id is longer than {_LONGEST_SESSION} characters or not printable.",
            code="invalid_value",
        )
    return session or None
