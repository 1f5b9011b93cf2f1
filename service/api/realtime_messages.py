"""The events of a transcription session of OpenAI's Realtime: JSON text to values and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.api.errors import Answer, answer_to, error_object
from service.api.fields import BadEvent, Fields
from service.live.items import (
    Added,
    Completed,
    Failed,
    ItemCommitted,
    ItemEvent,
    SpeechStarted,
    SpeechStopped,
)
from service.live.messages import Cleared
from service.text.logprobs import logprobs_json
from service.types import Segment

CLIENT_EVENTS = {  # and their fields
    "session.update": ("session",),
    "input_audio_buffer.append": ("audio",),
    "input_audio_buffer.commit": (),
    "input_audio_buffer.clear": (),
}
CONVERSATIONAL = ("conversation.", "response.", "output_audio_buffer.")
BETA_UPDATE = "transcription_session.update"
MAX_ID = 512  # characters of a client's event_id
TRANSCRIPTION = "conversation.item.input_audio_transcription"


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event of a known type with no unknown fields."""

    type: str
    given: dict[str, Any]

    @property
    def audio(self) -> bytes:
        """What is to be appended. Raises BadEvent."""
        text = self.given.get("audio")
        if not isinstance(text, str):
            raise BadEvent(
                "Missing required parameter: 'audio'.", "audio", "missing_required_parameter"
            )
        try:
            return base64.b64decode(text, validate=True)
        except ValueError:
            raise BadEvent("Invalid 'audio': it must be base64.", "audio") from None


def parse(text: str | bytes) -> dict[str, Any]:
    """An event as it comes. Raises BadEvent for what is no JSON object."""
    if isinstance(text, bytes):
        raise BadEvent(
            "Events are JSON in text messages; audio goes in input_audio_buffer.append, in base64.",
            code="invalid_event",
        )
    try:
        given = json.loads(text)
    # A deeply nested text exhausts the parser's stack.
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise BadEvent("An event must be a JSON object.", code="invalid_event")
    return given


def event_id(given: dict[str, Any]) -> str | None:
    """The client's own id of its event, where it is one."""
    value = given.get("event_id")
    return value if isinstance(value, str) and len(value) <= MAX_ID else None


def read(given: dict[str, Any]) -> ClientEvent:
    """Raises BadEvent for a type that a transcription session has not, and for unknown fields."""
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in CLIENT_EVENTS:
        raise _unknown(kind)
    Fields(given, "", ("type", "event_id", *CLIENT_EVENTS[kind]))
    if given.get("event_id") is not None and event_id(given) is None:
        raise BadEvent(
            f"Invalid 'event_id': must be a string of at most {MAX_ID} characters.", "event_id"
        )
    return ClientEvent(kind, given)


def _unknown(kind: Any) -> BadEvent:
    valid = ", ".join(CLIENT_EVENTS)
    if kind is None:
        return BadEvent("Missing required parameter: 'type'.", "type", "missing_required_parameter")
    if isinstance(kind, str) and kind.startswith(CONVERSATIONAL):
        why = "a transcription session has no conversation to change and no responses"
    elif kind == BETA_UPDATE:
        why = "the beta's shape is withdrawn; send session.update with a session of this type"
    else:
        why = "there is no such event"
    shown = json.dumps(kind)[:100]
    return BadEvent(f"Invalid 'type' {shown}: {why}. Supported: {valid}.", "type")


def refusal(
    answer: Answer, message: str, param: str | None, code: str, asked_by: str | None
) -> dict[str, Any]:
    """An `error` event; `asked_by`: the id of the client's event that it answers."""
    described = error_object(answer, message, param)
    return {"type": "error", "error": {**described, "code": code, "event_id": asked_by}}


def told(one: ItemEvent, token_bytes: Callable[[int], bytes] | None) -> tuple[dict[str, Any], ...]:
    """The events that tell of it, in order, without ids of their own.

    `token_bytes` is the model's, where log-probabilities are to be told.
    """
    match one:
        case SpeechStarted(item_id, at):
            return (_speech("started", item_id, audio_start_ms=round(1000 * at)),)
        case SpeechStopped(item_id, at):
            return (_speech("stopped", item_id, audio_end_ms=round(1000 * at)),)
        case Cleared():
            return ({"type": "input_audio_buffer.cleared"},)
        case ItemCommitted(item_id, previous):
            return _committed(item_id, previous)
        case Added(item_id, text, segments):
            said = {"delta": text, **_logprobs(segments, token_bytes)}
            return (_transcription("delta", item_id, **said),)
        case Completed():
            return (_completed(one, token_bytes),)
        case Failed(item_id, error):
            described = error_object(answer_to(error), str(error))
            return (_transcription("failed", item_id, error=described),)


def _speech(what: str, item_id: str, **at: int) -> dict[str, Any]:
    return {"type": f"input_audio_buffer.speech_{what}", "item_id": item_id, **at}


def _committed(item_id: str, previous: str | None) -> tuple[dict[str, Any], ...]:
    item = {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    before = {"previous_item_id": previous}
    return (
        {"type": "input_audio_buffer.committed", "item_id": item_id, **before},
        {"type": "conversation.item.added", "item": item, **before},
        {"type": "conversation.item.done", "item": item, **before},
    )


def _completed(one: Completed, token_bytes: Callable[[int], bytes] | None) -> dict[str, Any]:
    return _transcription(
        "completed",
        one.item_id,
        transcript=one.text,
        usage={"type": "duration", "seconds": one.seconds},
        languages=[{"code": code} for code in one.languages],
        **_logprobs(one.segments, token_bytes),
    )


def _transcription(what: str, item_id: str, **said: Any) -> dict[str, Any]:
    return {"type": f"{TRANSCRIPTION}.{what}", "item_id": item_id, "content_index": 0, **said}


def _logprobs(
    segments: tuple[Segment, ...], token_bytes: Callable[[int], bytes] | None
) -> dict[str, Any]:
    return {"logprobs": logprobs_json(segments, token_bytes)} if token_bytes else {}
