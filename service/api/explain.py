"""`/explain`: a recording sent, what a profile keeps of it as a page back. Nothing is stored."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from service.api.models import MODEL
from service.api.ops import asks_key, offer_of
from service.api.page import explain_html
from service.api.services import Services, services_of, while_connected
from service.api.uploads import read_upload, recording_openapi
from service.config import ServerConfig
from service.models import Served
from service.params.values import Given, collect, flag, number, one
from service.types import DecodeOptions, TranscribeRequest

NAME = "Recording"  # a client's own name for it stays with the client

_PROPERTIES: dict[str, Any] = {
    "model": MODEL,
    "profile": {"type": "string", "description": "A name that GET /profiles lists."},
    "language": {
        "type": "string",
        "description": "A code, tag or English name; detected if absent, or auto.",
    },
    "vad": {"type": "boolean", "default": True, "description": "Cut at silence, and skip it."},
    "audio": {
        "type": "boolean",
        "default": False,
        "description": "Put the recording into the page, to be heard with the picture.",
    },
    "timeout": {"type": "number", "description": "Seconds after which the work is cancelled."},
}
PARAMETERS = tuple(_PROPERTIES)

router = APIRouter()


@router.get("/explain", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """A form for what is posted there."""
    services = services_of(request)
    _check_on(services)
    config = services.config
    return HTMLResponse(
        explain_html(offer_of(services), config.default_profile, asks_key=asks_key(config))
    )


@router.post(
    "/explain",
    openapi_extra=recording_openapi(_PROPERTIES),
    summary="Draw what a profile keeps of a recording",
    response_class=HTMLResponse,
)
async def explain(request: Request) -> HTMLResponse:
    """One HTML page: log-mel, frames kept, merged and dropped, the attention that they receive,
    words, and how they differ from dense's. 404 unless the operator has set `WINNOW_EXPLAIN`.

    The recording as multipart `file` or as a raw `audio/*` body; parameters as for `/transcribe`.
    """
    services = services_of(request)
    _check_on(services)
    services.admit(request)
    query = request.query_params.multi_items()
    collect(query, PARAMETERS)  # a wrong name is refused before the upload
    async with read_upload(request, services.config) as upload:
        given = collect([*query, *upload.fields], PARAMETERS)
        served = await services.serve(request, one(given, "model"))
        asked = _asked(given, served, services.config)
        audio = flag("audio", one(given, "audio"), False)
        request.state.profile = asked.profile.name
        work = served.pipeline.explain(upload.audio, asked)
        ours, dense = await while_connected(request, work)

    def draw() -> str:
        # The normaliser is imported with this: a server that explains nothing does without.
        from service.explain import explanation, html

        return html.to_html(explanation.explain(NAME, asked.profile, ours, dense), audio=audio)

    return HTMLResponse(await asyncio.to_thread(draw))


def _check_on(services: Services) -> None:
    """Raises a 404 that says how to turn it on."""
    if not services.config.explain:
        raise HTTPException(404, "off on this server; the setting WINNOW_EXPLAIN=true turns it on")


def _asked(given: Given, served: Served, config: ServerConfig) -> TranscribeRequest:
    longest_s = float(config.deadline_seconds)
    language = served.pipeline.resolve_language(one(given, "language"))
    return TranscribeRequest(
        profile=served.pipeline.resolve_profile(one(given, "profile")),
        options=DecodeOptions(language),
        vad=flag("vad", one(given, "vad"), True),
        timeout_s=number("timeout", one(given, "timeout"), longest_s, longest_s, positive=True),
    )
