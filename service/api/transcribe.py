"""`POST /transcribe`: Winnow's own route, with everything it can say about a recording."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import PROPERTIES, STREAM, respond, wanted
from service.api.models import MODEL
from service.api.services import services_of, while_connected
from service.api.streams import open_stream
from service.api.uploads import read_upload, recording_openapi
from service.config import ServerConfig
from service.models import Served
from service.params.decoding import LANGUAGES, decoding
from service.params.decoding import PROPERTIES as DECODING
from service.params.values import (
    GRANULARITIES,
    Given,
    choice,
    collect,
    flag,
    granularities,
    number,
    one,
    plain_name,
    several,
)
from service.pipeline import TASKS
from service.text.formats import FORMATS, segment_json, to_format, to_json
from service.types import Progress, TranscribeRequest

CHANNELS = ("mix", "split")

_PROPERTIES = {
    "model": MODEL,
    "profile": {"type": "string", "description": "A name that GET /profiles lists."},
    "language": {
        "type": "string",
        "description": "A code, tag or English name; detected if absent, or auto.",
    },
    "languages[]": LANGUAGES,
    "task": {"type": "string", "enum": list(TASKS)},
    **DECODING,
    "vad": {"type": "boolean", "default": True, "description": "Cut at silence, and skip it."},
    "word_timestamps": {
        "type": "boolean",
        "default": False,
        "description": "Put `words` with their times and probabilities into each segment.",
    },
    f"{GRANULARITIES}[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["segment", "word"]},
        "description": "OpenAI's way to say it: `word` is word_timestamps=true.",
    },
    "channels": {
        "type": "string",
        "enum": list(CHANNELS),
        "description": "split transcribes each channel on its own, as call recordings need.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    **PROPERTIES,
    **STREAM,
    "strict": {
        "type": "boolean",
        "default": False,
        "description": "Refuse a recording of which a part cannot be read.",
    },
    "timeout": {"type": "number", "description": "Seconds after which the work is cancelled."},
}

PARAMETERS = tuple(plain_name(name) for name in _PROPERTIES)

router = APIRouter()


@router.post(
    "/transcribe", openapi_extra=recording_openapi(_PROPERTIES), summary="Transcribe a recording"
)
async def transcribe(request: Request) -> Response:
    """The recording as multipart `file` or as a raw `audio/*` body.

    Parameters come as form fields, in the query string, or both.
    """
    services = services_of(request)
    services.admit(request)
    query = request.query_params.multi_items()
    collect(query, PARAMETERS)  # a wrong name is refused before the upload
    async with read_upload(request, services.config) as upload:
        given = collect([*query, *upload.fields], PARAMETERS)
        want = wanted(given, FORMATS)
        served = await services.serve(request, one(given, "model"))
        asked = _asked(given, served, services.config)
        request.state.profile = asked.profile.name
        if want.stream:
            return await open_stream(
                request, served.pipeline, upload.audio, asked, _segments, to_json
            )
        work = served.pipeline.transcribe(upload.audio, asked)
        transcript = await while_connected(request, work)
    content = to_format(transcript, want.response_format, asked.options.task, want.layout)
    return respond(content, want.response_format, transcript.warnings)


def _segments(part: Progress) -> dict[str, object]:
    return {"segments": [segment_json(segment) for segment in part.segments]}


def _asked(given: Given, served: Served, config: ServerConfig) -> TranscribeRequest:
    longest_s = float(config.deadline_seconds)
    how = decoding(given, served.engine.model)
    language, languages = served.pipeline.resolve_spoken(
        one(given, "language"), several(given, "languages")
    )
    return TranscribeRequest(
        profile=served.pipeline.resolve_profile(one(given, "profile")),
        options=replace(
            how.options,
            language=language,
            languages=languages,
            task=choice("task", one(given, "task"), TASKS),
            word_times=flag("word_timestamps", one(given, "word_timestamps"), False)
            or "word" in granularities(given),
        ),
        vad=flag("vad", one(given, "vad"), True),
        timeout_s=number("timeout", one(given, "timeout"), longest_s, longest_s, positive=True),
        thresholds=how.thresholds,
        temperatures=how.temperatures,
        split_channels=choice("channels", one(given, "channels"), CHANNELS) == "split",
        strict=flag("strict", one(given, "strict"), False),
    )
