"""Windows' hypotheses -> the segments and the text of the whole recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from service.languages import WRITTEN_WITHOUT_SPACES
from service.text.silence import is_silent
from service.text.timestamps import LEAST_S, Span, TimedPiece, compression_ratio, lay_out, settle
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
    return tuple(follow_on(windows, None, duration_s))


def follow_on(
    windows: Sequence[WindowText], previous: Segment | None, duration_s: float
) -> list[Segment]:
    """The segments of windows in time order, after the `previous` one of their channel."""
    segments: list[Segment] = []
    for one, following in zip_longest(windows, windows[1:]):
        # A text that was gone on with has ended by then, whatever its last timestamp says.
        until = duration_s if following is None else min(following.window.start_s, duration_s)
        segments += _segments(one, segments[-1] if segments else previous, until, duration_s)
    return segments


def _segments(
    one: WindowText, previous: Segment | None, until: float, duration_s: float
) -> list[Segment]:
    if one.is_silent:
        return []
    timed = settle(one.pieces, one.window.duration_s)
    words = by_piece(one.hypothesis.words, one.pieces)
    num_words = [max(1, len(some)) for some in words]
    spans = _spans(one, timed, num_words, previous, until, duration_s)
    ratio = compression_ratio("".join(piece.text for piece in timed).strip())
    logprobs = _by_piece(one.hypothesis.token_logprobs, one.pieces)
    segments: list[Segment] = []
    for number, piece in enumerate(timed):
        apart = number == 0 and previous is not None and _needs_space(previous, piece, one)
        space = " " if apart else ""
        segment = _segment(one, piece, ratio, previous, spans[number], space)
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
    said = spoken_languages(windows) or _by_count(windows)
    return said[0] if said else default


def spoken_languages(windows: Sequence[WindowText]) -> tuple[str, ...]:
    """The languages of windows that have text, that of most of them first."""
    return _by_count([one for one in windows if one.has_text])


def _by_count(windows: Sequence[WindowText]) -> tuple[str, ...]:
    votes = Counter(one.hypothesis.language for one in windows)
    return tuple(language for language, _ in votes.most_common())


def _needs_space(previous: Segment, piece: TimedPiece, one: WindowText) -> bool:
    """Whether two windows' words would run together in a language that separates them."""
    if one.hypothesis.language in WRITTEN_WITHOUT_SPACES:
        return False
    return not previous.text[-1].isspace() and not piece.text[0].isspace()


def _spans(
    one: WindowText,
    timed: Sequence[TimedPiece],
    num_words: Sequence[int],
    previous: Segment | None,
    until: float,
    duration_s: float,
) -> list[Span]:
    """The pieces' times in the recording: after the previous segment, and before `until`."""
    at = one.window.start_s
    # Windows may touch at a rounding error; the previous end keeps the order exact.
    begin = min(max(at, previous.end if previous else 0.0), duration_s)
    end = min(at + one.window.duration_s, until)
    end = max(end, min(begin + LEAST_S * sum(num_words), duration_s))
    return lay_out([(at + piece.start, at + piece.end) for piece in timed], begin, end, num_words)


def _segment(
    one: WindowText,
    piece: TimedPiece,
    ratio: float,
    previous: Segment | None,
    span: Span,
    space: str,
) -> Segment:
    return Segment(
        id=previous.id + 1 if previous else 0,
        start=span[0],
        end=span[1],
        text=space + piece.text,
        tokens=piece.tokens,
        avg_logprob=one.hypothesis.avg_logprob,
        no_speech_prob=one.hypothesis.no_speech_prob,
        compression_ratio=ratio,
        temperature=one.hypothesis.temperature,
        channel=one.window.channel,
    )
