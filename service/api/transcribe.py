"""`POST /transcribe`: Winnow's own route, with everything it can say about a recording."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import PROPERTIES, STREAM, respond, wanted
from service.api.params import choice, collect, flag, number, one
from service.api.services import Services, services_of, while_connected
from service.api.streams import open_stream
from service.api.uploads import read_upload
from service.pipeline import TASKS
from service.text.formats import FORMATS, segment_json, to_format, to_json
from service.text.subtitles import LIMITS
from service.types import DecodeOptions, Progress, TranscribeRequest

PARAMETERS = (
    "profile",
    "language",
    "task",
    "temperature",
    "vad",
    "channels",
    "response_format",
    *LIMITS,
    "stream",
    "timeout",
)
CHANNELS = ("mix", "split")
MAX_TEMPERATURE = 1.0

_PROPERTIES = {
    "profile": {"type": "string", "description": "A name that GET /profiles lists."},
    "language": {"type": "string", "description": "A code or English name; detected if absent."},
    "task": {"type": "string", "enum": list(TASKS)},
    "temperature": {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE, "default": 0},
    "vad": {"type": "boolean", "default": True, "description": "Cut at silence, and skip it."},
    "channels": {
        "type": "string",
        "enum": list(CHANNELS),
        "description": "split transcribes each channel on its own, as call recordings need.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    **PROPERTIES,
    **STREAM,
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
    collect(query, PARAMETERS)  # a wrong name is refused before the upload
    async with read_upload(request, services.config) as upload:
        given = collect([*query, *upload.fields], PARAMETERS)
        want = wanted(given, FORMATS)
        asked = _asked(given, services)
        request.state.profile = asked.profile.name
        if want.stream:
            return await open_stream(request, upload.audio, asked, _segments, to_json)
        work = services.pipeline.transcribe(upload.audio, asked)
        transcript = await while_connected(request, work)
    content = to_format(transcript, want.response_format, asked.options.task, want.layout)
    return respond(content, want.response_format)


def _segments(part: Progress) -> dict[str, object]:
    return {"segments": [segment_json(segment) for segment in part.segments]}


def _asked(given: Mapping[str, tuple[str, ...]], services: Services) -> TranscribeRequest:
    longest_s = float(services.config.deadline_seconds)
    return TranscribeRequest(
        profile=services.pipeline.resolve_profile(one(given, "profile")),
        options=DecodeOptions(
            language=services.pipeline.resolve_language(one(given, "language")),
            task=choice("task", one(given, "task"), TASKS),
            temperature=number("temperature", one(given, "temperature"), 0.0, MAX_TEMPERATURE),
        ),
        vad=flag("vad", one(given, "vad"), True),
        timeout_s=number("timeout", one(given, "timeout"), longest_s, longest_s, positive=True),
        split_channels=choice("channels", one(given, "channels"), CHANNELS) == "split",
    )
