"""The list of models, as far as the asker may use them, in OpenAI's or Anthropic's shape."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import JSONResponse

from holdfast_gateway.api.credentials import authorization_of
from holdfast_gateway.api.endpoints import Shape, shape_of
from holdfast_gateway.api.errors import model_not_found
from holdfast_gateway.config import Model
from holdfast_gateway.services import Services


class Models:
    """GET /v1/models and GET /v1/models/{id}."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: Request) -> JSONResponse:
        """Return the models the asker may use, in the order of the configuration."""
        access = self._services.access
        principal = await access.authenticate(authorization_of(request.url.path, request.headers))
        allowed = [
            model
            for model in self._services.models.values()
            if access.may_infer(principal, model.id, model).allowed
            and self._services.switches.model(model.id) is None
        ]
        entries = [self._entry(model, request) for model in allowed]
        if not _anthropic(request):
            return JSONResponse({"object": "list", "data": entries})
        ends = {"first_id": allowed[0].id, "last_id": allowed[-1].id} if allowed else {}
        return JSONResponse({"data": entries, "has_more": False, **ends})

    async def retrieve(self, request: Request) -> JSONResponse:
        """Return one model, or the 404 that does not tell forbidden from missing."""
        access = self._services.access
        principal = await access.authenticate(authorization_of(request.url.path, request.headers))
        model_id: str = request.path_params["model_id"]
        model = self._services.models.get(model_id)
        decision = access.may_infer(principal, model_id, model)
        if model is None or not decision.allowed:
            raise model_not_found(model_id)
        barred = self._services.switches.model(model_id)
        if barred is not None:
            raise barred
        return JSONResponse(self._entry(model, request))

    def _entry(self, model: Model, request: Request) -> dict[str, object]:
        created = self._services.started_at
        if _anthropic(request):
            since = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return {
                "type": "model",
                "id": model.id,
                "display_name": model.id,
                "created_at": since,
            }
        return {
            "id": model.id,
            "object": "model",
            "created": created,
            "owned_by": "holdfast",
        }


def _anthropic(request: Request) -> bool:
    return shape_of(request.url.path, request.headers) is Shape.ANTHROPIC
