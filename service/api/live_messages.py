"""The messages of a live session: JSON text to values and back. `docs/live.md` describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.api.errors import answer_to, error_object
from service.api.services import Services
from service.audio.stream import MAX_CHANNELS, MAX_RATE, MIN_RATE
from service.errors import InvalidRequest, WinnowError
from service.live.messages import Ack, Flush, Refused, Stop
from service.live.session import Final, LiveRequest, Partial, Session
from service.text.formats import TIME_DECIMALS
from service.types import SAMPLE_RATE, DecodeOptions, Segment, TranscribeRequest

ENCODINGS = ("pcm_s16le", "opus")
MAX_SEQ = 2**53  # what a JSON number can count to everywhere
_NUMBERS = {
    "sample_rate": (MIN_RATE, MAX_RATE, SAMPLE_RATE),
    "channels": (1, MAX_CHANNELS, 1),
    "after": (0, MAX_SEQ, 0),
}
START_FIELDS = (
    *("type", "model", "profile", "language", "encoding", "sample_rate", "channels", "partials"),
    *("session", "after"),
)


@dataclass(frozen=True, slots=True)
class Start:
    """The first message: what is asked, and which session is resumed after which final."""

    asked: LiveRequest
    session_id: str | None
    after: int


async def read_start(text: str, services: Services) -> Start:
    """Waits for the model that is asked for, if it has to be loaded.

    Raises InvalidRequest naming the field, and what `Models.get` raises.
    """
    given = _object(text)
    if given.get("type") != "start":
        raise InvalidRequest('The first message must have "type": "start".', "type")
    _check_fields(given, START_FIELDS)
    encoding = _text(given, "encoding") or ENCODINGS[0]
    if encoding not in ENCODINGS:
        raise InvalidRequest(
            f"encoding {encoding!r} is not one of: {', '.join(ENCODINGS)}.", "encoding"
        )
    timeout_s = float(services.config.deadline_seconds)
    name = services.models.name_of(_text(given, "model"))
    pipeline = (await services.models.get(name, timeout_s)).pipeline
    request = TranscribeRequest(
        profile=pipeline.resolve_profile(_text(given, "profile")),
        options=DecodeOptions(language=pipeline.resolve_language(_text(given, "language"))),
        timeout_s=timeout_s,
    )
    asked = LiveRequest(
        name,
        request,
        encoding,
        sample_rate=_whole(given, "sample_rate"),
        channels=_whole(given, "channels"),
        partials=_flag(given, "partials", True),
    )
    return Start(asked, _text(given, "session"), _whole(given, "after"))


def read_message(text: str) -> Ack | Flush | Stop:
    """A message after the first. Raises InvalidRequest naming the field."""
    given = _object(text)
    kind = given.get("type")
    if kind == "ack":
        _check_fields(given, ("type", "seq"))
        return Ack(_number("seq", given.get("seq"), 0, MAX_SEQ))
    if kind in ("flush", "stop"):
        _check_fields(given, ("type",))
        return Flush() if kind == "flush" else Stop()
    raise InvalidRequest("type must be ack, flush or stop after the first message.", "type")


def ready(session: Session, resumed: bool) -> dict[str, Any]:
    """The answer to start: which session, and how much of its audio is here already."""
    return {
        "type": "ready",
        "session": session.id,
        "model": session.asked.model,
        "profile": session.asked.request.profile.name,
        "resumed": resumed,
        "received_bytes": session.received_bytes,
        "received_seconds": round(session.received_s, TIME_DECIMALS),
    }


def event(one: Partial | Final | Refused) -> dict[str, Any]:
    """What a conversation sends."""
    match one:
        case Partial():
            return {"type": "partial", "id": one.id, **_stretch(one), "text": one.text}
        case Final():
            return _final(one)
        case Refused(refusal):
            return {"type": "error", "error": _described(refusal)}


def done(session: Session) -> dict[str, Any]:
    """The last message: every final was sent."""
    return {
        "type": "done",
        "seq": session.last_seq,
        "received_bytes": session.received_bytes,
        "received_seconds": round(session.received_s, TIME_DECIMALS),
    }


def _final(final: Final) -> dict[str, Any]:
    said: dict[str, Any] = {
        "type": "final",
        "seq": final.seq,
        "id": final.seq,
        **_stretch(final),
        "text": final.text,
        "language": final.language,
        "segments": [{**_stretch(one), "text": one.text} for one in final.segments],
    }
    return said if final.error is None else {**said, "error": _described(final.error)}


def _stretch(one: Partial | Final | Segment) -> dict[str, float]:
    return {"start": round(one.start, TIME_DECIMALS), "end": round(one.end, TIME_DECIMALS)}


def _described(failure: WinnowError) -> dict[str, str | None]:
    return error_object(answer_to(failure), str(failure), getattr(failure, "param", None))


def _object(text: str) -> Mapping[str, Any]:
    try:
        given = json.loads(text)
    # A deeply nested text exhausts the parser's stack.
    except (ValueError, RecursionError):
        raise InvalidRequest("A text message must be a JSON object.") from None
    if not isinstance(given, dict):
        raise InvalidRequest("A text message must be a JSON object.")
    return given


def _check_fields(given: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    for name in given:
        if name not in valid:
            raise InvalidRequest(f"Unknown field {name!r}. Valid: {', '.join(valid)}.", name)


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string.", name)
    return value or None


def _whole(given: Mapping[str, Any], name: str) -> int:
    least, most, default = _NUMBERS[name]
    return _number(name, given.get(name, default), least, most)


def _number(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number, {least:,} to {most:,}.", name)
    return value


def _flag(given: Mapping[str, Any], name: str, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false.", name)
    return value
