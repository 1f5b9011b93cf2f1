"""OpenAI's transcription and models routes, such that its Python client works unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from service.api.decoding import OPENAI_PROPERTIES as DECODING
from service.api.decoding import decoding
from service.api.errors import ModelNotFound
from service.api.params import GRANULARITIES, choice, collect, flag, granularities, one
from service.api.services import Services, services_of, transcribe_while_connected
from service.api.uploads import read_upload
from service.errors import InvalidRequest
from service.profiles import Profile
from service.text.formats import to_openai_json, to_openai_verbose, to_text
from service.types import TranscribeRequest, Transcript

ALIAS = "whisper-1"  # what OpenAI calls its hosted Whisper: stands for the loaded model
PARAMETERS = (
    "model",
    "language",
    *DECODING,
    "response_format",
    *GRANULARITIES,
    "stream",
)
FORMATS = ("json", "text", "verbose_json")
OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "model"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "model": {
                            "type": "string",
                            "description": "One that GET /v1/models lists: model or model@profile.",
                        },
                        "language": {"type": "string"},
                        "response_format": {"type": "string", "enum": list(FORMATS)},
                        **DECODING,
                        "timestamp_granularities[]": {
                            "type": "array",
                            "items": {"type": "string", "enum": ["segment", "word"]},
                        },
                    },
                }
            }
        },
    }
}

router = APIRouter(prefix="/v1")


@router.post(
    "/audio/transcriptions", openapi_extra=OPENAPI, summary="Transcribe, OpenAI-compatible"
)
async def transcriptions(request: Request) -> Response:
    """OpenAI's route: https://platform.openai.com/docs/api-reference/audio/createTranscription."""
    services = services_of(request)
    services.check_ready()
    query = request.query_params.multi_items()
    collect(query, PARAMETERS, GRANULARITIES)
    async with read_upload(request, services.config, raw=False) as upload:
        given = collect([*query, *upload.fields], PARAMETERS, GRANULARITIES)
        _refuse_unsupported(given)
        response_format = choice("response_format", one(given, "response_format"), FORMATS)
        times = _granularities(given, response_format)
        profile = _resolve_model(services, one(given, "model"))
        request.state.profile = profile.name
        how = decoding(given, services.engine.model)
        asked = TranscribeRequest(
            profile=profile,
            options=replace(
                how.options,
                language=services.pipeline.resolve_language(one(given, "language")),
                word_times="word" in times,
            ),
            timeout_s=float(services.config.deadline_seconds),
            thresholds=how.thresholds,
            temperatures=how.temperatures,
        )
        transcript = await transcribe_while_connected(request, upload.audio, asked)
    return _formatted(transcript, response_format, times)


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
    if flag("stream", one(given, "stream"), False):
        raise InvalidRequest("stream=true is not supported yet: leave it out.", "stream")


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


def _formatted(transcript: Transcript, response_format: str, times: tuple[str, ...]) -> Response:
    if response_format == "text":
        return PlainTextResponse(to_text(transcript))
    if response_format == "verbose_json":
        return JSONResponse(to_openai_verbose(transcript, "transcribe", times))
    return JSONResponse(to_openai_json(transcript))
