"""OpenAI's transcription and models routes, such that its Python client works unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import PROPERTIES, STREAM, respond, wanted
from service.api.decoding import OPENAI_PROPERTIES as DECODING
from service.api.decoding import decoding
from service.api.errors import ModelNotFound
from service.api.params import GRANULARITIES, collect, granularities, one
from service.api.services import Services, services_of, while_connected
from service.api.streams import open_stream
from service.api.uploads import read_upload
from service.errors import InvalidRequest
from service.profiles import Profile
from service.text.formats import to_format, to_openai_json, to_openai_verbose
from service.text.subtitles import LIMITS
from service.types import TranscribeRequest

ALIAS = "whisper-1"  # what OpenAI calls its hosted Whisper: stands for the loaded model
SHARED = ("model", "response_format", *DECODING, *LIMITS)
PARAMETERS = {
    "transcribe": (*SHARED, "language", *GRANULARITIES, "stream"),
    "translate": SHARED,
}
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_SHARED_PROPERTIES: dict[str, Any] = {
    "file": {"type": "string", "format": "binary"},
    "model": {
        "type": "string",
        "description": "One that GET /v1/models lists: model or model@profile.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    **DECODING,
    **PROPERTIES,
}
_TRANSCRIPTION_PROPERTIES: dict[str, Any] = {
    "language": {"type": "string"},
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["segment", "word"]},
    },
    **STREAM,
}


def _openapi(properties: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": ["file", "model"], "properties": properties}
    content = {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}


router = APIRouter(prefix="/v1")


@router.post(
    "/audio/transcriptions",
    openapi_extra=_openapi(_SHARED_PROPERTIES | _TRANSCRIPTION_PROPERTIES),
    summary="Transcribe, OpenAI-compatible",
)
async def transcriptions(request: Request) -> Response:
    """OpenAI's route: https://platform.openai.com/docs/api-reference/audio/createTranscription."""
    return await _answer(request, "transcribe")


@router.post(
    "/audio/translations",
    openapi_extra=_openapi(_SHARED_PROPERTIES),
    summary="Translate into English, OpenAI-compatible",
)
async def translations(request: Request) -> Response:
    """OpenAI's route: https://platform.openai.com/docs/api-reference/audio/createTranslation."""
    return await _answer(request, "translate")


async def _answer(request: Request, task: str) -> Response:
    services = services_of(request)
    services.admit(request)
    info = services.engine.model.info
    if task == "translate" and not info.knows_several:
        raise InvalidRequest(
            f"The model {info.name} hears one language only and cannot translate.", "model"
        )
    query = request.query_params.multi_items()
    collect(query, PARAMETERS[task], GRANULARITIES)
    async with read_upload(request, services.config, raw=False) as upload:
        given = collect([*query, *upload.fields], PARAMETERS[task], GRANULARITIES)
        want = wanted(given, FORMATS)
        times = _granularities(given, want.response_format)
        profile = resolve_model(services, one(given, "model"))
        request.state.profile = profile.name
        how = decoding(given, services.engine.model)
        asked = TranscribeRequest(
            profile=profile,
            options=replace(
                how.options,
                language=services.pipeline.resolve_language(one(given, "language")),
                word_times="word" in times,
                task=task,
            ),
            timeout_s=float(services.config.deadline_seconds),
            thresholds=how.thresholds,
            temperatures=how.temperatures,
        )
        if want.stream:
            return await open_stream(request, upload.audio, asked, lambda part: {}, to_openai_json)
        work = services.pipeline.transcribe(upload.audio, asked)
        transcript = await while_connected(request, work)
    if want.response_format == "json":
        return respond(to_openai_json(transcript), "json")
    if want.response_format == "verbose_json":
        return respond(to_openai_verbose(transcript, task, times), "verbose_json")
    content = to_format(transcript, want.response_format, task, want.layout)
    return respond(content, want.response_format, transcript.warnings)


@router.get("/models", summary="The loaded model, plain and with each profile")
async def models(request: Request) -> dict[str, Any]:
    """The loaded model under its name (the default profile), and once per profile."""
    ids = _model_ids(services_of(request))
    return {"object": "list", "data": [_model(request, model_id) for model_id in ids]}


@router.get("/models/{model_id:path}", summary="One model")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    """One of the ids that `/v1/models` lists, or `whisper-1`."""
    resolve_model(services_of(request), model_id)
    return _model(request, model_id)


def _model(request: Request, model_id: str) -> dict[str, Any]:
    """As OpenAI has it, and where the weights are from and under which licence, if it is known."""
    info = services_of(request).engine.model.info
    known = {"license": info.license, "origin": info.origin}
    return {
        "id": model_id,
        "object": "model",
        "created": request.app.state.started_at,
        "owned_by": info.owner or "winnow",
        **{name: value for name, value in known.items() if value},
    }


def _model_ids(services: Services) -> dict[str, Profile]:
    name = services.engine.model.info.name
    named = {f"{name}@{p.name}": p for p in services.pipeline.profiles.values()}
    return {name: services.pipeline.resolve_profile(None), **named}


def resolve_model(services: Services, asked: str | None) -> Profile:
    """The profile that a `model` stands for. Raises InvalidRequest, ModelNotFound."""
    valid = _model_ids(services)
    if asked is None:
        raise InvalidRequest(f"model is required. Served here: {', '.join(valid)}.", "model")
    name = services.engine.model.info.name
    head, at, tail = asked.partition("@")
    model_id = f"{name}{at}{tail}" if head == ALIAS else asked
    if model_id not in valid:
        if model_id.startswith(f"{name}@"):
            profiles = ", ".join(services.pipeline.profiles)
            raise InvalidRequest(f"unknown profile in '{asked}'; use one of {profiles}", "model")
        raise ModelNotFound(
            f"The model '{asked}' is not served here. Served: {', '.join(valid)}.", "model"
        )
    return valid[model_id]


def _granularities(given: Mapping[str, tuple[str, ...]], response_format: str) -> tuple[str, ...]:
    """The lists that verbose_json is to hold: segments, where nothing is said, as OpenAI has it."""
    asked = granularities(given)
    if not asked:
        return ("segment",)
    if response_format != "verbose_json":
        raise InvalidRequest(
            "timestamp_granularities needs response_format=verbose_json.",
            "timestamp_granularities",
        )
    return asked
