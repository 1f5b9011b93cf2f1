"""What an answer looks like: its format, the lines of subtitles, and whether it is streamed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse, Response

from service.api.params import Given, choice, flag, one, whole
from service.errors import InvalidRequest
from service.text.formats import SUBTITLES, warnings_json
from service.text.subtitles import LIMITS, Layout
from service.types import Notice

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
}
WARNINGS_HEADER = "x-winnow-warnings"  # a JSON list, in ASCII
STREAMED = ("json", "text")  # the formats that events stand for
PROPERTIES: dict[str, Any] = {
    name: {
        "type": "integer",
        "minimum": least,
        "maximum": most,
        "description": "For srt and vtt.",
    }
    for name, (least, most) in LIMITS.items()
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


def wanted(given: Given, formats: Sequence[str], *, lenient: bool = False) -> Wanted:
    """Reads `response_format`, the lines of subtitles, and `stream`. Raises InvalidRequest.

    `lenient`: `stream` with a format that cannot be streamed is no error, and no stream.
    """
    response_format = choice("response_format", one(given, "response_format"), formats)
    values = {name: whole(name, one(given, name), *LIMITS[name]) for name in LIMITS}
    layout = Layout(**values)
    for name, value in values.items():
        if value is not None and response_format not in SUBTITLES:
            raise InvalidRequest(f"{name} needs response_format srt or vtt.", name)
    layout.check()
    stream = flag("stream", one(given, "stream"), False)
    if stream and response_format not in STREAMED:
        if lenient:
            return Wanted(response_format, layout, False)
        raise InvalidRequest("stream=true needs response_format json or text.", "stream")
    return Wanted(response_format, layout, stream)


def respond(
    content: str | dict[str, Any], response_format: str, warnings: Sequence[Notice] = ()
) -> Response:
    """The answer with its content type; `warnings` in a header where it is no JSON."""
    if isinstance(content, dict):
        return JSONResponse(content)
    headers = {WARNINGS_HEADER: json.dumps(warnings_json(warnings))} if warnings else {}
    return Response(content, media_type=MEDIA_TYPES[response_format], headers=headers)
