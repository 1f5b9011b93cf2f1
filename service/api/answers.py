"""What an answer looks like: its format, the lines of subtitles, and whether it is streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, Response

from service.api.params import choice, flag, one, whole
from service.errors import InvalidRequest
from service.text.formats import SUBTITLES
from service.text.subtitles import MIN_LINE_WIDTH, Layout

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
STREAMED = ("json", "text")  # the formats that events stand for
MOST = 1000
# Valid values of each, least and most.
LAYOUT = {
    "max_line_width": (MIN_LINE_WIDTH, MOST),
    "max_line_count": (1, MOST),
    "max_words_per_line": (1, MOST),
}
PROPERTIES: dict[str, Any] = {
    name: {
        "type": "integer",
        "minimum": least,
        "maximum": most,
        "description": "For srt and vtt.",
    }
    for name, (least, most) in LAYOUT.items()
}
STREAM: dict[str, Any] = {
    "stream": {
        "type": "boolean",
        "default": False,
        "description": "Answer with server-sent events, a delta for each part that is done.",
    }
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a request wants to be answered."""

    response_format: str
    layout: Layout
    stream: bool


def wanted(given: Mapping[str, tuple[str, ...]], formats: Sequence[str]) -> Wanted:
    """Reads `response_format`, the lines of subtitles, and `stream`. Raises InvalidRequest."""
    response_format = choice("response_format", one(given, "response_format"), formats)
    values = {name: whole(name, one(given, name), *LAYOUT[name]) for name in LAYOUT}
    layout = Layout(**values)
    for name, value in values.items():
        if value is not None and response_format not in SUBTITLES:
            raise InvalidRequest(f"{name} needs response_format srt or vtt.", name)
    check_layout(layout)
    stream = flag("stream", one(given, "stream"), False)
    if stream and response_format not in STREAMED:
        raise InvalidRequest("stream=true needs response_format json or text.", "stream")
    return Wanted(response_format, layout, stream)


def check_layout(layout: Layout) -> None:
    """Raises InvalidRequest for limits of which one would do nothing."""
    if layout.max_line_count is not None and layout.max_line_width is None:
        raise InvalidRequest("max_line_count needs max_line_width.", "max_line_count")
    if layout.max_words_per_line is not None and layout.max_line_width is not None:
        raise InvalidRequest(
            "max_words_per_line and max_line_width exclude each other: give one.",
            "max_words_per_line",
        )


def respond(content: str | dict[str, Any], response_format: str) -> Response:
    """The answer with its content type."""
    if isinstance(content, dict):
        return JSONResponse(content)
    return Response(content, media_type=MEDIA_TYPES[response_format])
