"""The session object of OpenAI's Realtime, for transcription: read, merged, shown, and understood.

A `session.update` changes what it names and leaves the rest; one that cannot be taken changes
nothing. What is taken but means nothing here is named in a notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from service.api.fields import BadEvent, Fields
from service.api.models import read_model
from service.audio.endpoint import Manner
from service.audio.vad import CHUNK_SAMPLES
from service.errors import InvalidRequest
from service.live.session import LiveRequest
from service.models import Models, Served
from service.params.decoding import decoding
from service.profiles import Profile
from service.types import SAMPLE_RATE, Notice, TranscribeRequest

PCM_RATE = 24_000
G711_RATE = 8_000
ENCODINGS = {  # how each format is decoded: encoding, and its only sample rate
    "audio/pcm": ("pcm_s16le", PCM_RATE),
    "audio/pcmu": ("pcmu", G711_RATE),
    "audio/pcma": ("pcma", G711_RATE),
}
LOGPROBS = "item.input_audio_transcription.logprobs"
SERVER_VAD, SEMANTIC_VAD = "server_vad", "semantic_vad"
# Silence that ends a turn where the meaning would have decided: OpenAI waits at most 8, 4 and 2 s.
EAGERNESS_MS = {"low": 1200, "auto": 800, "medium": 800, "high": 500}
# OpenAI's models that leave turns to the client: who asks for one and says nothing of turn
# detection means to commit.
BY_COMMIT = ("gpt-live-transcribe", "gpt-realtime-whisper")
DELAYS = ("minimal", "low", "medium", "high", "xhigh")
MAX_PREFIX_MS, MAX_SILENCE_MS = 5_000, 20_000
HYSTERESIS = 0.15  # speech ends this much below the probability at which it begins
# Without turn detection a pause ends no turn, but what was said before one of a second is final.
COMMIT_PAUSE_MS = 1_000
TRANSCRIPTION = "session.audio.input.transcription"
TRANSCRIPTION_FIELDS = ("model", "language", "languages", "keywords", "prompt", "delay")
TURN_FIELDS = (
    *("type", "threshold", "prefix_padding_ms", "silence_duration_ms", "eagerness"),
    *("create_response", "interrupt_response", "idle_timeout_ms"),
)


@dataclass(frozen=True, slots=True)
class Vad:
    """`turn_detection` by the server. Times in milliseconds."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """A transcription session as it stands. `vad` None: only a commit ends a turn; `chosen`:
    whether the client has said so, or otherwise."""

    model: str
    language: str | None = None
    languages: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    prompt: str | None = None
    format: str = "audio/pcm"
    noise_reduction: str | None = None
    vad: Vad | None = Vad()
    chosen: bool = False
    logprobs: bool = False


def first_settings(model: str) -> Settings:
    """Before the client has said anything but the model."""
    return Settings(model, vad=_usual_vad(model))


def read_update(session: Any, now: Settings) -> tuple[Settings, list[Notice]]:
    """What the `session` of a `session.update` makes of the settings, and what it cannot.

    Raises BadEvent naming the field. Model and languages are not looked up yet.
    """
    given = Fields(session, "session", ("type", "audio", "include"))
    if given.choice("type", ("transcription", "realtime")) == "realtime":
        raise BadEvent(
            "Invalid 'session.type': only transcription sessions are served here; use "
            "transcription.",
            "session.type",
        )
    audio = given.inner("audio", ("input",))
    spoken = audio.inner("input", ("format", "noise_reduction", "transcription", "turn_detection"))
    notices = [*_unused(spoken)]
    updated = _transcription(spoken, now)
    updated = replace(updated, format=_format(spoken, now), vad=_vad(spoken, updated))
    include = given.texts("include", (LOGPROBS,) if now.logprobs else ())
    if set(include) - {LOGPROBS}:
        raise BadEvent(f"Invalid 'session.include': use {LOGPROBS}.", "session.include")
    updated = replace(
        updated,
        chosen=now.chosen or "turn_detection" in spoken,
        noise_reduction=_noise_reduction(spoken, now),
        logprobs=bool(include),
    )
    return updated, notices


def show(settings: Settings, session_id: str) -> dict[str, Any]:
    """The whole session in effect, as OpenAI has it."""
    vad, rate = settings.vad, {"rate": PCM_RATE} if settings.format == "audio/pcm" else {}
    transcription = {
        "model": settings.model,
        "language": settings.language,
        "languages": list(settings.languages),
        "keywords": list(settings.keywords),
        "prompt": settings.prompt,
    }
    turns = vad and {
        "type": SERVER_VAD,
        "threshold": vad.threshold,
        "prefix_padding_ms": vad.prefix_padding_ms,
        "silence_duration_ms": vad.silence_duration_ms,
    }
    noise = settings.noise_reduction
    return {
        "id": session_id,
        "object": "realtime.transcription_session",
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": settings.format, **rate},
                "noise_reduction": noise and {"type": noise},
                "transcription": {k: v for k, v in transcription.items() if v},
                "turn_detection": turns,
            }
        },
        "include": [LOGPROBS] if settings.logprobs else None,
    }


def to_request(
    settings: Settings, served: Served, profile: Profile, timeout_s: float
) -> LiveRequest:
    """What the settings ask of a live session with the model and the profile that they name.

    Raises InvalidRequest naming the field for a language or a prompt that is not to be had.
    """
    with _within(TRANSCRIPTION):
        language, languages = served.pipeline.resolve_spoken(settings.language, settings.languages)
        said = {"prompt": settings.prompt, "hotwords": ", ".join(settings.keywords)}
        given = {name: (text,) for name, text in said.items() if text and text.strip()}
        options = decoding(given, served.engine.model).options
    encoding, rate = ENCODINGS[settings.format]
    return LiveRequest(
        served.name,
        TranscribeRequest(
            profile=profile,
            options=replace(options, language=language, languages=languages),
            timeout_s=timeout_s,
        ),
        encoding,
        rate,
        manner=_manner(settings.vad),
        partials=False,
        turns=True,
    )


def _manner(vad: Vad | None) -> Manner:
    if vad is None:
        return Manner(pause=_chunks(COMMIT_PAUSE_MS))
    return Manner(
        on=vad.threshold,
        off=max(0.0, vad.threshold - HYSTERESIS),
        before=_chunks(vad.prefix_padding_ms),
        pause=_chunks(vad.silence_duration_ms),
    )


def _chunks(ms: int) -> int:
    """The nearest number of the VAD's chunks."""
    return round(ms * SAMPLE_RATE / 1000 / CHUNK_SAMPLES)


def _transcription(spoken: Fields, now: Settings) -> Settings:
    given = spoken.inner("transcription", TRANSCRIPTION_FIELDS)
    language, languages = now.language, now.languages
    # Whoever names one, or several, no longer means what was named before.
    if "language" in given or "languages" in given:
        language, languages = given.text("language"), given.texts("languages", ())
    return replace(
        now,
        model=given.text("model", now.model) or now.model,
        language=language,
        languages=languages,
        keywords=given.texts("keywords", now.keywords),
        prompt=given.text("prompt", now.prompt),
    )


def _format(spoken: Fields, now: Settings) -> str:
    given = spoken.inner("format", ("type", "rate"))
    kind = given.choice("type", tuple(ENCODINGS), now.format)
    given.only("rate", ENCODINGS[kind][1])
    return kind


def _vad(spoken: Fields, now: Settings) -> Vad | None:
    if "turn_detection" not in spoken:
        return now.vad if now.chosen else _usual_vad(now.model)
    if spoken.is_null("turn_detection"):
        return None
    given = spoken.inner("turn_detection", TURN_FIELDS)
    usual = now.vad or Vad()
    if given.choice("type", (SERVER_VAD, SEMANTIC_VAD), SERVER_VAD) == SEMANTIC_VAD:
        eagerness = given.choice("eagerness", tuple(EAGERNESS_MS), "auto")
        usual = Vad(silence_duration_ms=EAGERNESS_MS[eagerness])
    return Vad(
        given.number("threshold", 0, 1, usual.threshold),
        given.whole("prefix_padding_ms", 0, MAX_PREFIX_MS, usual.prefix_padding_ms),
        given.whole("silence_duration_ms", 0, MAX_SILENCE_MS, usual.silence_duration_ms),
    )


def _usual_vad(model: str) -> Vad | None:
    return None if model.partition("@")[0] in BY_COMMIT else Vad()


def _noise_reduction(spoken: Fields, now: Settings) -> str | None:
    if spoken.is_null("noise_reduction") or "noise_reduction" not in spoken:
        return now.noise_reduction if "noise_reduction" not in spoken else None
    given = spoken.inner("noise_reduction", ("type", "strength"))
    given.number("strength", 0, 1, 1)
    return given.choice("type", ("near_field", "far_field"), now.noise_reduction or "near_field")


def _unused(spoken: Fields) -> Iterator[Notice]:
    """What is taken and means nothing here."""
    if "noise_reduction" in spoken and not spoken.is_null("noise_reduction"):
        yield _notice(spoken, "noise_reduction", "the model hears the audio as it comes")
    given = spoken.inner("transcription", TRANSCRIPTION_FIELDS)
    if "delay" in given and not given.is_null("delay"):
        given.choice("delay", DELAYS)
        yield _notice(given, "delay", "text is sent as soon as it is final")
    if "turn_detection" in spoken and not spoken.is_null("turn_detection"):
        yield from _unused_of_turns(spoken.inner("turn_detection", TURN_FIELDS))


def _unused_of_turns(given: Fields) -> Iterator[Notice]:
    semantic = given.choice("type", (SERVER_VAD, SEMANTIC_VAD), SERVER_VAD) == SEMANTIC_VAD
    if semantic:
        yield _notice(given, "type", f"{SEMANTIC_VAD} is {SERVER_VAD} with a longer silence here")
    elif "eagerness" in given:
        yield _notice(given, "eagerness", f"it belongs to {SEMANTIC_VAD}")
    for name in ("create_response", "interrupt_response", "idle_timeout_ms"):
        if name in given and not given.is_null(name):
            yield _notice(given, name, "a transcription session has no responses")


def _notice(given: Fields, name: str, why: str) -> Notice:
    param = given.path(name)
    return Notice("ignored_parameter", f"{param} has no effect: {why}.", param)


def read_names(models: Models, settings: Settings) -> tuple[str, str | None]:
    """What `read_model` says of the settings' model. Raises InvalidRequest naming the field."""
    with _within(TRANSCRIPTION):
        return read_model(models, settings.model)


@contextmanager
def _within(path: str) -> Iterator[None]:
    """Errors name their field by its whole path."""
    try:
        yield
    except InvalidRequest as error:
        error.param = f"{path}.{_NAMES.get(error.param or '', error.param)}"
        raise


_NAMES = {"hotwords": "keywords"}
