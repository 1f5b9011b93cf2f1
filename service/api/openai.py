"""OpenAI's transcription and models routes, such that its Python client works unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.api.answers import PROPERTIES, STREAM, respond, wanted
from service.api.errors import ModelNotFound
from service.api.params import choice, collect, number, one
from service.api.services import Services, services_of, while_connected
from service.api.streams import open_stream
from service.api.uploads import read_upload
from service.errors import InvalidRequest
from service.profiles import Profile
from service.text.formats import to_format, to_openai_json
from service.text.subtitles import LIMITS
from service.types import DecodeOptions, TranscribeRequest

ALIAS = "whisper-1"  # what OpenAI calls its hosted Whisper: stands for the loaded model
GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")
SHARED = ("model", "prompt", "response_format", "temperature", *LIMITS)
PARAMETERS = {
    "transcribe": (*SHARED, "language", *GRANULARITIES, "stream"),
    "translate": SHARED,
}
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
MAX_TEMPERATURE = 1.0
_SHARED_PROPERTIES: dict[str, Any] = {
    "file": {"type": "string", "format": "binary"},
    "model": {
        "type": "string",
        "description": "One that GET /v1/models lists: model or model@profile.",
    },
    "response_format": {"type": "string", "enum": list(FORMATS)},
    "temperature": {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE},
    **PROPERTIES,
}
_TRANSCRIPTION_PROPERTIES: dict[str, Any] = {
    "language": {"type": "string"},
    "timestamp_granularities[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["segment"]},
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
    services.check_ready()
    info = services.engine.model.info
    if task == "translate" and not info.multilingual:
        raise InvalidRequest(
            f"The model {info.name} hears one language only and cannot translate.", "model"
        )
    query = request.query_params.multi_items()
    collect(query, PARAMETERS[task], GRANULARITIES)
    async with read_upload(request, services.config, raw=False) as upload:
        given = collect([*query, *upload.fields], PARAMETERS[task], GRANULARITIES)
        _refuse_unsupported(given)
        want = wanted(given, FORMATS)
        _check_granularities(given, want.response_format)
        profile = _resolve_model(services, one(given, "model"))
        request.state.profile = profile.name
        asked = TranscribeRequest(
            profile=profile,
            options=DecodeOptions(
                language=services.pipeline.resolve_language(one(given, "language")),
                task=task,
                temperature=number("temperature", one(given, "temperature"), 0.0, MAX_TEMPERATURE),
            ),
            timeout_s=float(services.config.deadline_seconds),
        )
        if want.stream:
            return await open_stream(request, upload.audio, asked, lambda part: {}, to_openai_json)
        work = services.pipeline.transcribe(upload.audio, asked)
        transcript = await while_connected(request, work)
    if want.response_format == "json":
        return respond(to_openai_json(transcript), "json")
    return respond(
        to_format(transcript, want.response_format, task, want.layout), want.response_format
    )


@router.get("/models", summary="The loaded model, plain and with each profile")
async def models(request: Request) -> dict[str, Any]:
    """The loaded model under its name (the default profile), and once per profile."""
    ids = _model_ids(services_of(request))
    return {"object": "list", "data": [_model(request, model_id) for model_id in ids]}


@router.get("/models/{model_id:path}", summary="One model")
async def model(request: Request, model_id: str) -> dict[str, Any]:
    """One of the ids that `/v1/models` lists, or `whisper-1`."""
    _resolve_model(services_of(request), model_id)
    return _model(request, model_id)


def _model(request: Request, model_id: str) -> dict[str, Any]:
    created = request.app.state.started_at
    return {"id": model_id, "object": "model", "created": created, "owned_by": "winnow"}


def _model_ids(services: Services) -> dict[str, Profile]:
    name = services.engine.model.info.name
    named = {f"{name}@{p.name}": p for p in services.pipeline.profiles.values()}
    return {name: services.pipeline.resolve_profile(None), **named}


def _resolve_model(services: Services, asked: str | None) -> Profile:
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


def _refuse_unsupported(given: Mapping[str, tuple[str, ...]]) -> None:
    if "prompt" in given:
        raise InvalidRequest(
            "prompt is not supported yet, and would change nothing: leave it out.", "prompt"
        )


def _check_granularities(given: Mapping[str, tuple[str, ...]], response_format: str) -> None:
    values = [value for name in GRANULARITIES for value in given.get(name, ())]
    if not values:
        return
    for value in values:
        if value == "word":
            raise InvalidRequest(
                "Word timestamps are not supported yet. Valid timestamp_granularities: segment.",
                "timestamp_granularities",
            )
        choice("timestamp_granularities", value, ("segment",))
    if response_format != "verbose_json":
        raise InvalidRequest(
            "timestamp_granularities needs response_format=verbose_json.",
            "timestamp_granularities",
        )
