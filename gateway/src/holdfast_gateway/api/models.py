"""The list of models, as far as the asker may use them."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from holdfast_gateway.api.credentials import authorization_of
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
        return JSONResponse({"object": "list", "data": [self._entry(model) for model in allowed]})

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
        return JSONResponse(self._entry(model))

    def _entry(self, model: Model) -> dict[str, object]:
        return {
            "id": model.id,
            "object": "model",
            "created": self._services.started_at,
            "owned_by": "holdfast",
        }
