"""A window's pieces of text -> complete, ordered times within the window."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from service.types import Piece

Span = tuple[float, float]

LEAST_S = 0.02  # a frame of the model: no text takes less, and players pass over what takes none


@dataclass(frozen=True, slots=True)
class TimedPiece:
    """A piece with both its times, in seconds from the window's start."""

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]


def settle(pieces: Sequence[Piece], duration_s: float) -> list[TimedPiece]:
    """Gives every piece a start and an end, in order and inside [0, `duration_s`].

    A missing start is the previous end (or 0); a missing end is the next start that the model
    gave, else `duration_s`. A time before the previous end moves up to it, so pieces never
    overlap, and each has a length. Pieces without text are left out.
    """
    spans: list[Span] = []
    previous_end = 0.0
    spoken = [piece for piece in pieces if piece.text.strip()]
    for number, piece in enumerate(spoken):
        start = _clamp(piece.start_s, previous_end, duration_s, missing=previous_end)
        given_end = piece.end_s
        if given_end is None and number + 1 < len(spoken):
            given_end = spoken[number + 1].start_s
        previous_end = _clamp(given_end, start, duration_s, missing=duration_s)
        spans.append((start, previous_end))
    return [
        TimedPiece(*span, piece.text, piece.tokens)
        for span, piece in zip(lay_out(spans, 0.0, duration_s), spoken, strict=True)
    ]


def lay_out(
    spans: Sequence[Span], begin: float, end: float, num_words: Sequence[int] = ()
) -> list[Span]:
    """Spans inside [`begin`, `end`], in order, none over another, and each at least `LEAST_S`
    long for each of its words: in proportion less where there is no room.

    Those that are so already stay as they are. One too short takes its time from what follows,
    at the end from what comes before.
    """
    words = [max(1, count) for count in num_words or [1] * len(spans)]
    least = min(LEAST_S, max(0.0, end - begin) / max(1, sum(words)))
    placed: list[Span] = []
    at = begin
    for (start, stop), count in zip(spans, words, strict=True):
        start = max(start, at)
        at = max(stop, start + count * least)
        placed.append((start, at))
    limit = end
    for number in reversed(range(len(placed))):
        start, stop = placed[number]
        if stop <= limit:
            break
        placed[number] = (max(begin, min(start, limit - words[number] * least)), limit)
        limit = placed[number][0]
    return placed


def compression_ratio(text: str) -> float:
    """Bytes of `text` per byte of it compressed; repetitive text has a high one.

    As openai-whisper measures it: zlib, UTF-8. 0 for empty text.
    """
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _clamp(value: float | None, least: float, most: float, missing: float) -> float:
    return min(max(missing if value is None else value, least), most)
