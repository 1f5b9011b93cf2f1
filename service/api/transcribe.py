"""`POST /transcribe`: Winnow's own route, with everything it can say about a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.api.decoding import PROPERTIES as DECODING
from service.api.decoding import decoding
from service.api.params import GRANULARITIES, choice, collect, flag, granularities, number, one
from service.api.services import Services, services_of, transcribe_while_connected
from service.api.uploads import read_upload
from service.pipeline import TASKS
from service.text.formats import to_json, to_text
from service.types import TranscribeRequest

PARAMETERS = (
    "profile",
    "language",
    "task",
    *DECODING,
    "vad",
    "word_timestamps",
    *GRANULARITIES,
    "response_format",
    "timeout",
)
FORMATS = ("json", "text")

_PROPERTIES = {
    "profile": {"type": "string", "description": "A name that GET /profiles lists."},
    "language": {"type": "string", "description": "A code or English name; detected if absent."},
    "task": {"type": "string", "enum": list(TASKS)},
    **DECODING,
    "vad": {"type": "boolean", "default": True, "description": "Cut at silence, and skip it."},
    "word_timestamps": {
        "type": "boolean",
        "default": False,
        "description": "Put `words` with their times and probabilities into each segment.",
    },
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["segment", "word"]},
        "description": "OpenAI's way to say it: `word` is word_timestamps=true.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    "timeout": {"type": "number", "description": "Seconds after which the work is cancelled."},
}
_RECORDING = {"type": "string", "format": "binary"}
OPENAPI = {
    "parameters": [
        {"name": name, "in": "query", "schema": schema} for name, schema in _PROPERTIES.items()
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _RECORDING, **_PROPERTIES},
                }
            },
            "audio/*": {"schema": _RECORDING},
        },
    },
}

router = APIRouter()


@router.post("/transcribe", openapi_extra=OPENAPI, summary="Transcribe a recording")
async def transcribe(request: Request) -> Response:
    """The recording as multipart `file` or as a raw `audio/*` body.

    Parameters come as form fields, in the query string, or both.
    """
    services = services_of(request)
    services.check_ready()
    query = request.query_params.multi_items()
    collect(query, PARAMETERS, GRANULARITIES)  # a wrong name is refused before the upload
    async with read_upload(request, services.config) as upload:
        given = collect([*query, *upload.fields], PARAMETERS, GRANULARITIES)
        response_format = choice("response_format", one(given, "response_format"), FORMATS)
        asked = _asked(given, services)
        request.state.profile = asked.profile.name
        transcript = await transcribe_while_connected(request, upload.audio, asked)
    if response_format == "text":
        return PlainTextResponse(to_text(transcript))
    return JSONResponse(to_json(transcript))


def _asked(given: Mapping[str, tuple[str, ...]], services: Services) -> TranscribeRequest:
    longest_s = float(services.config.deadline_seconds)
    how = decoding(given, services.engine.model)
    return TranscribeRequest(
        profile=services.pipeline.resolve_profile(one(given, "profile")),
        options=replace(
            how.options,
            language=services.pipeline.resolve_language(one(given, "language")),
            task=choice("task", one(given, "task"), TASKS),
            word_times=flag("word_timestamps", one(given, "word_timestamps"), False)
            or "word" in granularities(given),
        ),
        vad=flag("vad", one(given, "vad"), True),
        timeout_s=number("timeout", one(given, "timeout"), longest_s, longest_s, positive=True),
        thresholds=how.thresholds,
        temperatures=how.temperatures,
    )
