"""Operations: is it alive, is it ready, what does it offer, how is it doing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.page import Choice, Offer, index_html
from service.api.services import Services, services_of
from service.config import ServerConfig
from service.evidence import Evidence, measured

router = APIRouter()


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    """200 for as long as the process can answer, loading and draining included."""
    return {"status": "ok"}


@router.get("/readyz", summary="The engine takes work")
async def readyz(request: Request) -> dict[str, str]:
    """200 when work is taken; else 503 with the reason and `Retry-After`."""
    services_of(request).check_ready()
    return {"status": "ready"}


@router.get("/metrics", summary="Prometheus series")
async def metrics(request: Request) -> Response:
    """Every series of `service.metrics`, in Prometheus' text format."""
    series = generate_latest(services_of(request).metrics.registry)
    return Response(series, media_type=CONTENT_TYPE_LATEST)


@router.get("/profiles", summary="The speed profiles")
async def profiles(request: Request) -> dict[str, list[dict[str, Any]]]:
    """Each profile with what it does, and what was measured of it on the model: the first one, or
    the one that `?model=` names.

    `evidence` is null where nothing was; one of the profiles is the default.
    """
    models, asked = services_of(request).models, request.query_params.get("model")
    default = models.first.pipeline.resolve_profile(None)
    known = models.known[models.name_of(asked)]
    answer = []
    for profile in models.profiles_of(known.name).values():
        evidence = known.evidence[profile.name]
        answer.append(
            asdict(profile)
            | {
                "default": profile.name == default.name,
                "description": profile.description,
                "measured": measured(profile, evidence),
                "evidence": [_figures(one) for one in evidence] or None,
            }
        )
    return {"profiles": answer}


def _figures(evidence: Evidence) -> dict[str, Any]:
    return asdict(evidence) | {"difference_points": evidence.difference_points}


@router.get("/", include_in_schema=False)
async def index(request: Request) -> HTMLResponse:
    """A page to try the service by hand."""
    services = services_of(request)
    config = services.config
    return HTMLResponse(
        index_html(
            offer_of(services),
            config.default_profile,
            asks_key=asks_key(config),
            explains=config.explain,
        )
    )


def offer_of(services: Services) -> Offer:
    """The profiles of each model, as pages offer them."""
    return {
        known.name: [
            Choice(profile, measured(profile, known.evidence[profile.name]))
            for profile in services.models.profiles_of(known.name).values()
        ]
        for known in services.models.known.values()
    }


def asks_key(config: ServerConfig) -> bool:
    """Whether anything is answered only to who has an API key."""
    return bool(config.api_keys) or config.api_keys_file is not None
