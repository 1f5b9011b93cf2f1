"""What the served model is called, and OpenAI's routes that list it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from service.api.errors import ModelNotFound
from service.api.services import Services, services_of
from service.errors import InvalidRequest
from service.model.formats.names import other_names
from service.profiles import Profile

router = APIRouter(prefix="/v1")


@router.get("/models", summary="The loaded model, under every name that it can be asked for")
async def models(request: Request) -> dict[str, Any]:
    """The loaded model under its name, once per profile, then under its other names.

    Those are the hub's, and the ones that clients have built in (the setting `model_aliases`).
    """
    listed = _listed(services_of(request))
    return {"object": "list", "data": [_model(request, model_id) for model_id in listed]}


@router.get("/models/{model_id:path}", summary="One model")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    """One of the ids that `/v1/models` lists, any of them also with `@profile`."""
    resolve_model(services_of(request), model_id)
    return _model(request, model_id)


def resolve_model(services: Services, asked: str | None) -> Profile:
    """The profile of the model that is asked for, by any of its names, `name@profile` or not.

    Raises InvalidRequest where none is named or the profile is unknown, ModelNotFound for another
    model.
    """
    valid = ", ".join(_listed(services))
    if asked is None:
        raise InvalidRequest(f"model is required. Served here: {valid}.", "model")
    name, at, profile = asked.partition("@")
    if name not in _names(services):
        raise ModelNotFound(f"The model '{asked}' is not served here. Served: {valid}.", "model")
    if not at:
        return services.pipeline.resolve_profile(None)
    if profile not in services.pipeline.profiles:
        profiles = ", ".join(services.pipeline.profiles)
        raise InvalidRequest(f"unknown profile in '{asked}'; use one of {profiles}", "model")
    return services.pipeline.profiles[profile]


def _model(request: Request, model_id: str) -> dict[str, Any]:
    """As OpenAI has it, what it computes in, its weights' type, and where the weights are from and
    under which licence, if it is known."""
    info = services_of(request).engine.model.info
    known = {"license": info.license, "origin": info.origin}
    return {
        "id": model_id,
        "object": "model",
        "created": request.app.state.started_at,
        "owned_by": info.owner or "winnow",
        "dtype": info.dtype,
        "weight_dtype": info.weight_dtype,
        **{name: value for name, value in known.items() if value},
    }


def _listed(services: Services) -> list[str]:
    name, *others = _names(services)
    return [name, *(f"{name}@{profile}" for profile in services.pipeline.profiles), *others]


def _names(services: Services) -> list[str]:
    """Each once, the one that answers carry first."""
    name = services.engine.model.info.name
    return list(dict.fromkeys([name, *other_names(name), *services.config.model_aliases]))
