"""How much of the speech that was heard in a window its text accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from service.text.timestamps import TimedPiece

Stretch = tuple[float, float]

# Bytes of letters for a second of speech heard. The slowest of 320 utterances in English, German,
# Dutch, Korean and five more have 7, digits said alone 5; texts that break off have 0.1 to 1.
LEAST_BYTES_PER_S = 1.5
DIGIT_BYTES = 4  # a digit stands for a word
# Less speech than this under a piece says nothing about it: one short word, a cough.
JUDGED_S = 3.0
# Whisper's times may stretch over a pause, and over a phrase after it that its text leaves out.
# Text with less than this for all that is heard there is that of what comes before the pause.
LONG_PAUSE_S = 3.0
LEAST_BYTES_PER_S_OVER_PAUSE = 5.5
# Where times are those of peaks (CTC): a pause of a second or less between pieces is none.
PEAK_S = 0.5
# As much as a text repeats of its own beginning, if it begins again: eight words or so.
OPENING_CHARS = 40


@dataclass(frozen=True, slots=True)
class Coverage:
    """Seconds of speech without text: `skipped_s` before the text ends, `left_s` after."""

    skipped_s: float = 0.0
    left_s: float = 0.0


def cover(speech: Sequence[Stretch] | None, pieces: Sequence[TimedPiece]) -> Coverage:
    """What of the `speech` the pieces pass over; nothing where nobody listened (None).

    A piece passes over all that is spoken in its time where its text is far too short for it.
    """
    if not speech or not pieces:
        return Coverage()
    end = text_end(speech, pieces[-1])
    said = [(p.start, text_end(speech, p)) for p in pieces if not _is_thin(speech, p)]
    until_end = _within(speech, 0.0, end)
    covered = sum(_within(speech, start, stop) for start, stop in said)
    return Coverage(max(0.0, until_end - covered), _within(speech, end, float("inf")))


def widened(pieces: Sequence[TimedPiece], by_s: float) -> list[TimedPiece]:
    """Pieces that begin so much earlier and end so much later, but at most half-way to the next.

    For a model whose times are those of a sound's surest moment, which is shorter than the sound:
    the pauses between its pieces are longer than those in the speech.
    """
    wide: list[TimedPiece] = []
    for number, piece in enumerate(pieces):
        before = (pieces[number - 1].end + piece.start) / 2 if number else 0.0
        start, end = max(piece.start - by_s, before), piece.end + by_s
        if number + 1 < len(pieces):
            end = min(end, (piece.end + pieces[number + 1].start) / 2)
        wide.append(replace(piece, start=start, end=end))
    return wide


def text_end(speech: Sequence[Stretch], piece: TimedPiece) -> float:
    """When the text of a piece has been said: at its end, or before a pause that its time spans
    where it is too short for what is spoken after that as well."""
    heard_s = _within(speech, piece.start, piece.end)
    if _letter_bytes(piece.text) >= LEAST_BYTES_PER_S_OVER_PAUSE * heard_s:
        return piece.end
    for (_, until), (begin, _) in pairwise(speech):
        if begin - until >= LONG_PAUSE_S and piece.start < until and begin < piece.end:
            return until
    return piece.end


def begins_again(text: str) -> bool:
    """Whether a text comes back to its own beginning, word for word."""
    plain = " ".join(text.casefold().split())
    opening = plain[:OPENING_CHARS]
    return len(opening) == OPENING_CHARS and plain.find(opening, 1) > 0


def _is_thin(speech: Sequence[Stretch], piece: TimedPiece) -> bool:
    heard_s = _within(speech, piece.start, piece.end)
    return heard_s >= JUDGED_S and _letter_bytes(piece.text) < LEAST_BYTES_PER_S * heard_s


def _letter_bytes(text: str) -> int:
    digits = sum(char.isdigit() for char in text)
    letters = "".join(char for char in text if char.isalpha())
    return len(letters.encode()) + digits * DIGIT_BYTES


def _within(speech: Sequence[Stretch], start: float, end: float) -> float:
    return sum(max(0.0, min(until, end) - max(begin, start)) for begin, until in speech)
