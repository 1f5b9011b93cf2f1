"""`POST /detect-language`: which language a recording is in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from service.api.models import MODEL
from service.api.services import services_of, while_connected
from service.api.uploads import read_upload, recording_openapi
from service.params.decoding import LANGUAGES
from service.params.values import collect, number, one, several
from service.text.formats import language_answer
from service.types import DecodeOptions, TranscribeRequest

PARAMETERS = ("model", "profile", "languages", "timeout")
_PROPERTIES = {
    "model": MODEL,
    "profile": {"type": "string", "description": "A name that GET /profiles lists."},
    "languages[]": LANGUAGES,
    "timeout": {"type": "number", "description": "Seconds after which the work is cancelled."},
}

router = APIRouter()


@router.post(
    "/detect-language",
    openapi_extra=recording_openapi(_PROPERTIES),
    summary="Detect a recording's language",
)
async def detect_language(request: Request) -> dict[str, Any]:
    """The language of the first window that has speech, and every language's probability.

    The recording as multipart `file` or as a raw `audio/*` body. Where nobody speaks the language
    is null. A model of one language has nothing to detect: 400.
    """
    services = services_of(request)
    services.admit(request)
    query = request.query_params.multi_items()
    collect(query, PARAMETERS)
    longest_s = float(services.config.deadline_seconds)
    async with read_upload(request, services.config) as upload:
        given = collect([*query, *upload.fields], PARAMETERS)
        timeout_s = number("timeout", one(given, "timeout"), longest_s, longest_s, positive=True)
        served = await services.serve(request, one(given, "model"))
        profile = served.pipeline.resolve_profile(one(given, "profile"))
        request.state.profile = profile.name
        languages = served.pipeline.resolve_languages(several(given, "languages"))
        options = DecodeOptions(languages=languages)
        asked = TranscribeRequest(profile, options, timeout_s=timeout_s)
        work = served.pipeline.detect_language(upload.audio, asked)
        return language_answer(await while_connected(request, work))
