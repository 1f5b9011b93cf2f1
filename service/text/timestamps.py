"""A window's pieces of text -> complete, ordered times within the window."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from service.types import Piece


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
    overlap. Pieces without text are left out.
    """
    settled: list[TimedPiece] = []
    previous_end = 0.0
    spoken = [piece for piece in pieces if piece.text.strip()]
    for number, piece in enumerate(spoken):
        start = _clamp(piece.start_s, previous_end, duration_s, missing=previous_end)
        given_end = piece.end_s
        if given_end is None and number + 1 < len(spoken):
            given_end = spoken[number + 1].start_s
        end = _clamp(given_end, start, duration_s, missing=duration_s)
        settled.append(TimedPiece(start, end, piece.text, piece.tokens))
        previous_end = end
    return settled


def compression_ratio(text: str) -> float:
    """Bytes of `text` per byte of it compressed; repetitive text has a high one.

    As openai-whisper measures it: zlib, UTF-8. 0 for empty text.
    """
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def _clamp(value: float | None, least: float, most: float, missing: float) -> float:
    return min(max(missing if value is None else value, least), most)
