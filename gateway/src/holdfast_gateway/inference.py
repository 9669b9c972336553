"""The endpoints that ask a model: who, what, may they, then the answer."""

import time

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from holdfast_gateway.access import team_of
from holdfast_gateway.answer import Answer
from holdfast_gateway.body import ClientGoneError, read_body
from holdfast_gateway.calls import parse
from holdfast_gateway.client import Ended
from holdfast_gateway.errors import model_not_found, unavailable, unknown_url
from holdfast_gateway.services import Services
from holdfast_gateway.transaction import CLIENT_GONE, Transaction


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
        if request.method != "POST":
            raise unknown_url(request.method, request.url.path)
        if services.recorder.full:
            raise unavailable(
                "Usage cannot be recorded now, so nothing is served. Try again in a moment.",
                code="metering_unavailable",
            )
        principal = await services.access.authenticate(request.headers.get("authorization"))
        try:
            body = await read_body(request, services.config.limits)
        except ClientGoneError:
            return
        call = parse(self._endpoint, body)
        model = services.models.get(call.model)
        decision = services.access.may_infer(principal, call.model, model)
        request_id: str = request.state.request_id
        transaction = Transaction(
            services.recorder,
            request_id=request_id,
            started=started,
            principal=principal,
            team=team_of(principal, model) if model else None,
            call=call,
            decision=decision,
        )
        if model is None or not decision.allowed:
            transaction.refuse(404)
            raise model_not_found(call.model)
        answer = Answer(
            upstream=services.upstream,
            base=model.upstream,
            call=call,
            request_id=request_id,
            limits=services.config.limits,
            transaction=transaction,
            send=send,
        )
        try:
            ended = await services.inflight.run(request_id, receive, answer.give())
            if ended is Ended.CLIENT_GONE:
                transaction.end("aborted", CLIENT_GONE)
            elif ended is Ended.STOPPED:
                await answer.fail(unavailable("The gateway is being stopped. Ask again."))
        finally:
            # Reached without an end only through a defect of ours: it is counted all the same.
            transaction.end("error", 500)
