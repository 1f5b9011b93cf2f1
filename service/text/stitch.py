"""Windows' hypotheses -> the segments and the text of the whole recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.text.guard import is_silent
from service.text.languages import WRITTEN_WITHOUT_SPACES
from service.text.timestamps import TimedPiece, compression_ratio, settle
from service.text.words import by_piece, place
from service.types import Hypothesis, Piece, Segment, Thresholds, Window


@dataclass(frozen=True, slots=True)
class WindowText:
    """One window, the hypothesis it ended with, and that hypothesis as pieces of text.

    `thresholds` say whether it is silent.
    """

    window: Window
    hypothesis: Hypothesis
    pieces: tuple[Piece, ...]
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def is_silent(self) -> bool:
        text = "".join(piece.text for piece in self.pieces)
        heard = self.window.speech is None or bool(self.window.speech)
        return is_silent(self.hypothesis, self.thresholds, text, heard)

    @property
    def has_text(self) -> bool:
        return not self.is_silent and any(piece.text.strip() for piece in self.pieces)


def stitch(windows: Sequence[WindowText], duration_s: float) -> tuple[Segment, ...]:
    """Segments of a recording of `duration_s` seconds, or of a channel of it, in time order.

    `windows` are in time order. Ids are consecutive from 0; times are in the recording, inside
    it, and never overlap. A silent window gives no segment. Each segment's text carries its
    leading space, so that the texts joined are the text of the recording.
    """
    segments: list[Segment] = []
    for one in windows:
        segments += segments_of(one, segments[-1] if segments else None, duration_s)
    return tuple(segments)


def segments_of(one: WindowText, previous: Segment | None, duration_s: float) -> list[Segment]:
    """The segments of one window, which follow on the `previous` one of its channel."""
    if one.is_silent:
        return []
    timed = settle(one.pieces, one.window.duration_s)
    words = by_piece(one.hypothesis.words, one.pieces)
    ratio = compression_ratio("".join(piece.text for piece in timed).strip())
    logprobs = _by_piece(one.hypothesis.token_logprobs, one.pieces)
    segments: list[Segment] = []
    for number, piece in enumerate(timed):
        apart = number == 0 and previous is not None and _needs_space(previous, piece, one)
        space = " " if apart else ""
        segment = _segment(one, piece, ratio, previous, duration_s, space)
        own = place(words[number], one.window.start_s, segment.start, segment.end, space)
        previous = replace(segment, words=own, token_logprobs=logprobs[number])
        segments.append(previous)
    return segments


def _by_piece(logprobs: Sequence[float], pieces: Sequence[Piece]) -> list[tuple[float, ...]]:
    """Those of each piece with text. Pieces hold a hypothesis' tokens in order, from its first."""
    own: list[tuple[float, ...]] = []
    at = 0
    for piece in pieces:
        if piece.text.strip():
            own.append(tuple(logprobs[at : at + len(piece.tokens)]))
        at += len(piece.tokens)
    return own


def main_language(windows: Sequence[WindowText], default: str) -> str:
    """The language of most windows that have text (of all, if none has); the earlier on a tie."""
    heard = [one for one in windows if one.has_text] or windows
    votes = Counter(one.hypothesis.language for one in heard)
    return votes.most_common(1)[0][0] if votes else default


def _needs_space(previous: Segment, piece: TimedPiece, one: WindowText) -> bool:
    """Whether two windows' words would run together in a language that separates them."""
    if one.hypothesis.language in WRITTEN_WITHOUT_SPACES:
        return False
    return not previous.text[-1].isspace() and not piece.text[0].isspace()


def _segment(
    one: WindowText,
    piece: TimedPiece,
    ratio: float,
    previous: Segment | None,
    duration_s: float,
    space: str,
) -> Segment:
    # Windows may touch at a rounding error; the previous end keeps the order exact.
    start = min(max(one.window.start_s + piece.start, previous.end if previous else 0), duration_s)
    end = min(max(one.window.start_s + piece.end, start), duration_s)
    return Segment(
        id=previous.id + 1 if previous else 0,
        start=start,
        end=end,
        text=space + piece.text,
        tokens=piece.tokens,
        avg_logprob=one.hypothesis.avg_logprob,
        no_speech_prob=one.hypothesis.no_speech_prob,
        compression_ratio=ratio,
        temperature=one.hypothesis.temperature,
        channel=one.window.channel,
    )
