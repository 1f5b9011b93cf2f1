"""What OpenAI's transcription takes beyond our own parameters, and what of it means nothing here.

https://developers.openai.com/api/reference/resources/audio/subresources/transcriptions/methods/create
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service.errors import InvalidRequest
from service.model.protocol import ModelInfo
from service.params.decoding import CHOICES, asks_for_a_choice
from service.params.values import GRANULARITIES, Given, choice, flag, number, one, several, whole
from service.types import Notice

CHUNKING = "chunking_strategy"
VAD = "server_vad"
_VAD_KEYS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
MAX_VAD_MS = 60_000
SPEAKERS = ("known_speaker_names", "known_speaker_references")
# Their names for what has no meaning here or is said in parts; taken, and not advertised.
ALSO = (*SPEAKERS, *(f"{CHUNKING}[{key}]" for key in _VAD_KEYS))
PROPERTIES: dict[str, Any] = {
    "include[]": {
        "type": "array",
        "items": {"type": "string", "enum": ["logprobs"]},
        "description": "logprobs: each token with its log-probability; in json and verbose_json.",
    },
    CHUNKING: {
        "type": "string",
        "description": "auto, which is what happens in any case, or server_vad and its numbers.",
    },
}
PROMPTS = ("prompt", "hotwords", "keywords")


def followed(given: Given, info: ModelInfo) -> Given:
    """The parameters that a model can follow: without those of prompts where it takes none, and of
    choices where it has none."""
    left_out = (
        *(() if info.max_prompt_tokens else PROMPTS),
        *(CHOICES if info.frame_by_frame else ()),
    )
    return {name: values for name, values in given.items() if name not in left_out}


def wants_logprobs(given: Given) -> bool:
    """Whether `include` asks for them. Raises InvalidRequest for anything else in it."""
    asked = [choice("include", value, ("logprobs",)) for value in several(given, "include")]
    return bool(asked)


def ignored(
    given: Given, response_format: str, streamed: bool, info: ModelInfo
) -> Iterator[Notice]:
    """A notice for each parameter that is taken and changes nothing in this answer."""
    yield from _not_followed(given, info)
    is_json = response_format in ("json", "verbose_json")
    if GRANULARITIES in given and response_format in ("json", "text"):
        yield _notice(GRANULARITIES, "times are in response_format verbose_json, srt and vtt")
    if "include" in given and not is_json and not streamed:
        yield _notice("include", f"response_format {response_format} has no place for logprobs")
    if flag("stream", one(given, "stream"), False) and not streamed:
        yield _notice("stream", f"response_format {response_format} comes as a whole")
    for name in SPEAKERS:
        if name in given:
            yield _notice(name, "speakers are not told apart by their voices")
    if numbers := _vad_numbers(given):
        yield _notice(
            CHUNKING,
            f"{', '.join(numbers)} change nothing: recordings are cut for the model's 30 s, in "
            "the longest pauses that the voice activity detection finds",
        )


def _not_followed(given: Given, info: ModelInfo) -> Iterator[Notice]:
    """Of what `followed` leaves out that would have changed something."""
    for name in PROMPTS:
        if name in given and not info.max_prompt_tokens:
            yield _notice(name, f"the model {info.name} takes no prompt")
    for name in CHOICES:
        if info.frame_by_frame and asks_for_a_choice(given, name):
            why = f"the model {info.name} says what is likeliest frame by frame (CTC)"
            yield _notice(name, why)


def _notice(param: str, why: str) -> Notice:
    return Notice("ignored_parameter", f"{param} was ignored: {why}.", param=param)


def _vad_numbers(given: Given) -> tuple[str, ...]:
    """The numbers of `server_vad` that are given, checked. Raises InvalidRequest."""
    config = {key: one(given, f"{CHUNKING}[{key}]") for key in _VAD_KEYS}
    if (whole_value := one(given, CHUNKING)) is not None:
        config |= _parsed(whole_value)
    kind = config.pop("type")
    numbers = {key: value for key, value in config.items() if value is not None}
    if kind is None and not numbers:
        return ()
    if choice(CHUNKING, kind or VAD, ("auto", VAD, "none", "null")) != VAD and numbers:
        raise InvalidRequest(f"{CHUNKING}: only {VAD} has numbers.", CHUNKING)
    number(f"{CHUNKING}.threshold", numbers.get("threshold"), 0.5, 1.0)
    for key in _VAD_KEYS[2:]:
        whole(f"{CHUNKING}.{key}", numbers.get(key), 0, MAX_VAD_MS)
    return tuple(numbers)


def _parsed(value: str) -> dict[str, str | None]:
    """`auto`, or an object with its `type`, as JSON."""
    if not value.startswith(("{", '"')):
        return {"type": value}
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, str):
        return {"type": parsed}
    if not isinstance(parsed, dict) or not isinstance(parsed.get("type"), str):
        raise InvalidRequest(f'{CHUNKING}: use auto, or {{"type": "{VAD}", ...}}.', CHUNKING)
    if unknown := sorted(set(parsed) - set(_VAD_KEYS)):
        raise InvalidRequest(
            f"{CHUNKING}: unknown {', '.join(unknown)}; valid: {', '.join(_VAD_KEYS)}.", CHUNKING
        )
    return {key: None if one_value is None else str(one_value) for key, one_value in parsed.items()}
