"""OpenAI's transcription and translation routes, such that its clients work unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import PROPERTIES, STREAM, Wanted, respond, wanted
from service.api.models import serve_model
from service.api.openai_params import ALSO, followed, ignored, wants_logprobs
from service.api.openai_params import PROPERTIES as THEIRS
from service.api.services import services_of, while_connected
from service.api.streams import open_stream
from service.api.uploads import read_upload
from service.config import ServerConfig
from service.errors import InvalidRequest
from service.model.protocol import SpeechModel
from service.models import Served
from service.params.decoding import LANGUAGES, decoding
from service.params.decoding import OPENAI_PROPERTIES as DECODING
from service.params.values import (
    GRANULARITIES,
    Given,
    collect,
    granularities,
    one,
    plain_name,
    several,
)
from service.pipeline import Pipeline
from service.profiles import Profile
from service.text.formats import to_format, to_openai_json, to_openai_verbose
from service.text.logprobs import logprobs_json
from service.types import Notice, Progress, Segment, TranscribeRequest, Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_SHARED: dict[str, Any] = {
    "model": {
        "type": "string",
        "description": "One that GET /v1/models lists, or name@profile.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    **DECODING,
    **PROPERTIES,
}
_TRANSCRIPTION: dict[str, Any] = {
    "language": {"type": "string"},
    "languages[]": LANGUAGES,
    f"{GRANULARITIES}[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["segment", "word"]},
    },
    **THEIRS,
    **STREAM,
}
PARAMETERS = {
    "transcribe": tuple(plain_name(name) for name in _SHARED | _TRANSCRIPTION),
    "translate": tuple(plain_name(name) for name in _SHARED),
}
TAKEN = {"transcribe": ALSO, "translate": ()}  # beside those, without being advertised


def _openapi(properties: dict[str, Any]) -> dict[str, Any]:
    recording = {"file": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["file", "model"], "properties": recording | properties}
    content = {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


router = APIRouter(prefix="/v1")


@router.post(
    "/audio/transcriptions",
    openapi_extra=_openapi(_SHARED | _TRANSCRIPTION),
    summary="Transcribe, OpenAI-compatible",
)
async def transcriptions(request: Request) -> Response:
    """OpenAI's route: https://platform.openai.com/docs/api-reference/audio/createTranscription."""
    return await _answer(request, "transcribe")


@router.post(
    "/audio/translations",
    openapi_extra=_openapi(_SHARED),
    summary="Translate into English, OpenAI-compatible",
)
async def translations(request: Request) -> Response:
    """OpenAI's route: https://platform.openai.com/docs/api-reference/audio/createTranslation."""
    return await _answer(request, "translate")


@dataclass(frozen=True, slots=True)
class _Wish:
    """A request as it was understood, and the model that it asks for."""

    pipeline: Pipeline
    model: SpeechModel
    task: str
    want: Wanted
    asked: TranscribeRequest
    times: tuple[str, ...]
    logprobs: bool
    notices: tuple[Notice, ...]


async def _answer(request: Request, task: str) -> Response:
    services = services_of(request)
    services.admit(request)
    query = request.query_params.multi_items()
    collect(query, PARAMETERS[task], TAKEN[task])
    async with read_upload(request, services.config, raw=False) as upload:
        given = collect([*query, *upload.fields], PARAMETERS[task], TAKEN[task])
        served, profile = await serve_model(services, request, one(given, "model"))
        wish = _understood(given, served, profile, services.config, task)
        request.state.profile = wish.asked.profile.name
        if wish.want.stream:
            return await _stream(request, wish, upload.audio)
        work = served.pipeline.transcribe(upload.audio, wish.asked)
        transcript = _noted(await while_connected(request, work), wish)
    listed = _logprobs(wish, transcript.segments)
    if wish.want.response_format == "json":
        return respond(to_openai_json(transcript, task, listed), "json")
    if wish.want.response_format == "verbose_json":
        body = to_openai_verbose(transcript, task, wish.times, listed)
        return respond(body, "verbose_json")
    content = to_format(transcript, wish.want.response_format, task, wish.want.layout)
    return respond(content, wish.want.response_format, transcript.warnings)


async def _stream(request: Request, wish: _Wish, audio: Any) -> Response:
    def describe(part: Progress) -> dict[str, Any]:
        listed = _logprobs(wish, part.segments)
        return {} if listed is None else {"logprobs": listed}

    def summarise(transcript: Transcript) -> dict[str, Any]:
        listed = _logprobs(wish, transcript.segments)
        return to_openai_json(_noted(transcript, wish), wish.task, listed)

    return await open_stream(request, wish.pipeline, audio, wish.asked, describe, summarise)


def _noted(transcript: Transcript, wish: _Wish) -> Transcript:
    return replace(transcript, warnings=(*wish.notices, *transcript.warnings))


def _logprobs(wish: _Wish, segments: Iterable[Segment]) -> list[dict[str, Any]] | None:
    return logprobs_json(segments, wish.model.token_bytes) if wish.logprobs else None


def _understood(
    given: Given, served: Served, profile: Profile, config: ServerConfig, task: str
) -> _Wish:
    """Raises InvalidRequest for what cannot be done."""
    model = served.engine.model
    if task == "translate" and not model.info.knows_several:
        raise InvalidRequest(
            f"The model {model.info.name} hears one language only and cannot translate.", "model"
        )
    want = wanted(given, FORMATS, lenient=True)
    times = granularities(given)
    logprobs = wants_logprobs(given)
    how = decoding(followed(given, model.info), model)
    language, languages = served.pipeline.resolve_spoken(
        one(given, "language"), several(given, "languages")
    )
    asked = TranscribeRequest(
        profile=profile,
        options=replace(
            how.options,
            language=language,
            languages=languages,
            word_times="word" in times and want.response_format not in ("json", "text"),
            task=task,
        ),
        timeout_s=float(config.deadline_seconds),
        thresholds=how.thresholds,
        temperatures=how.temperatures,
    )
    # Segments, where nothing is said, as OpenAI has it.
    notices = tuple(ignored(given, want.response_format, want.stream, model.info))
    return _Wish(
        *(served.pipeline, model, task, want, asked),
        *(times or ("segment",), logprobs, notices),
    )
