"""Operations: is it alive, is it ready, what does it offer, how is it doing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.page import index_html
from service.api.services import services_of

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
    """Each profile with what it does; one of them is the default."""
    pipeline = services_of(request).pipeline
    default = pipeline.resolve_profile(None)
    return {
        "profiles": [
            {
                "name": p.name,
                "layer": p.layer,
                "sparsity": p.sparsity,
                "aggregation": p.aggregation,
                "selection": p.selection,
                "default": p.name == default.name,
                "description": p.description,
            }
            for p in pipeline.profiles.values()
        ]
    }


@router.get("/", include_in_schema=False)
async def index(request: Request) -> HTMLResponse:
    """A page to try the service by hand."""
    pipeline = services_of(request).pipeline
    return HTMLResponse(index_html(pipeline.profiles, pipeline.resolve_profile(None)))
