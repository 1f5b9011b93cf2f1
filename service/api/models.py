"""What the served models are called, OpenAI's routes that list them, and speaches' that load and
unload them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from service.api.services import Services, services_of, while_connected
from service.errors import InvalidRequest, ModelNotFound
from service.model.formats.names import known_model
from service.models import Models, Served
from service.profiles import Profile

# Of Winnow's own routes, in their OpenAPI.
MODEL = {
    "type": "string",
    "description": "One that GET /v1/models lists, without @profile; the first one if absent.",
}

router = APIRouter()


@router.get("/v1/models", summary="Every model, under every name that it can be asked for")
async def models(request: Request) -> dict[str, Any]:
    """Each under its name, once per profile, then under its other names; the first model first.

    Those are the hub's, and the ones that clients have built in (the setting `model_aliases`).
    `loaded`: whether it can answer at once; else who asks for it waits until it can.
    """
    served = services_of(request).models
    return {"object": "list", "data": [_model(request, one) for one in _listed(served)]}


@router.get("/v1/models/{model_id:path}", summary="One model")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    """One of the ids that `/v1/models` lists, any of them also with `@profile`."""
    read_model(services_of(request).models, model_id)
    return _model(request, model_id)


@router.get("/api/ps", summary="The models that are loaded")
async def loaded(request: Request) -> dict[str, list[str]]:
    """Names, the most recently used first."""
    return {"models": list(reversed(services_of(request).models.loaded))}


@router.post("/api/ps/{model_id:path}", status_code=201, summary="Load a model")
async def load(request: Request, model_id: str) -> dict[str, str]:
    """Returns when the model can answer, at once if it can already.

    503 where there is no room for it beside those that are in use.
    """
    services = services_of(request)
    services.check_ready()
    name, timeout_s = services.models.name_of(model_id), services.config.deadline_seconds
    await request.body()
    await while_connected(request, services.models.get(name, timeout_s))
    return {"model": name, "status": "loaded"}


@router.delete("/api/ps/{model_id:path}", status_code=204, summary="Unload a model")
async def unload(request: Request, model_id: str) -> Response:
    """Returns when what the model has accepted is answered, and its memory is given back."""
    models = services_of(request).models
    name = models.name_of(model_id)
    if not await models.unload(name):
        raise HTTPException(404, f"{name} is not loaded")
    return Response(status_code=204)


async def serve_model(
    services: Services, request: Request, asked: str | None
) -> tuple[Served, Profile]:
    """The model of a request of OpenAI's, by any of its names, `name@profile` or not.

    Raises what `read_model` and `Services.serve` raise.
    """
    name, profile = read_model(services.models, asked)
    served = await services.serve(request, name)
    return served, served.pipeline.resolve_profile(profile)


def read_model(models: Models, asked: str | None) -> tuple[str, str | None]:
    """The names of the model and the profile that are meant, None for the default profile.

    Raises InvalidRequest where none is named or the profile is unknown, ModelNotFound for another
    model.
    """
    if asked is None:
        raise InvalidRequest(f"model is required. Served here: {_valid(models)}.", "model")
    name, at, profile = asked.partition("@")
    try:
        name = models.name_of(name)
    except ModelNotFound:
        raise ModelNotFound(
            f"The model '{asked}' is not served here. Served: {_valid(models)}.", "model"
        ) from None
    profiles = models.profiles_of(name)
    if at and profile not in profiles:
        valid = ", ".join(profiles)
        raise InvalidRequest(f"unknown profile in '{asked}'; use one of {valid}", "model")
    return name, profile if at else None


def _model(request: Request, model_id: str) -> dict[str, Any]:
    """As OpenAI has it, and whether it is loaded; of one that is, what it computes in, its weights'
    type, and where they are from and under which licence, if it is known."""
    models = services_of(request).models
    name = models.name_of(model_id.partition("@")[0])
    known, info = known_model(name), models.loaded.get(name)
    answer = {
        "id": model_id,
        "object": "model",
        "created": request.app.state.started_at,
        "owned_by": known.owner if known else "winnow",
        "loaded": info is not None,
    }
    if info is None:
        return answer
    where = {"license": info.license, "origin": info.origin}
    return {
        **answer,
        "owned_by": info.owner or "winnow",
        "dtype": info.dtype,
        "weight_dtype": info.weight_dtype,
        **{key: value for key, value in where.items() if value},
    }


def _listed(models: Models) -> list[str]:
    listed = []
    for known in models.known.values():
        name, *others = models.names_of(known.name)
        listed += [name, *(f"{name}@{profile}" for profile in models.profiles_of(name)), *others]
    return listed


def _valid(models: Models) -> str:
    return ", ".join(_listed(models))
