"""Segments -> subtitles: cues of short lines, as SRT and WebVTT, and a table as TSV.

Text stays in its logical order, without marks of direction: players lay right-to-left text out by
its characters. Lines are measured in columns, of which a wide character takes two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from service.errors import InvalidRequest
from service.text.progress import channel_mark
from service.types import Segment

LONG_PAUSE_S = 3.0  # between two words' beginnings, as openai-whisper parts cues
# Each limit's least and most valid value. The mark of a channel takes 10 columns.
LIMITS = {
    "max_line_width": (10, 1000),
    "max_line_count": (1, 1000),
    "max_words_per_line": (1, 1000),
}
# Marks of direction, byte order and control: noise in a subtitle, and torn apart by line breaks.
_STRAY = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\x00-\x08\x0e-\x1b\x7f]")
_ZERO_WIDTH_JOINER = "\u200d"
# Signs that may not begin a line although they are letters: small kana, and the long vowel.
_NOT_FIRST = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶー々")


@dataclass(frozen=True, slots=True)
class Layout:
    """How subtitles are broken, None for without limit. The names are openai-whisper's.

    Without any, a cue is a segment. `max_line_width`, in columns, breaks a cue's lines; with
    `max_line_count` too, cues have at most so many lines, whichever segments they come from, and
    a long pause ends one; where one line has no room for a word beside the mark of its channel,
    they are two. `max_words_per_line` makes cues of at most so many words; a character of Chinese
    or Japanese counts as one.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None

    def check(self) -> None:
        """Raises InvalidRequest for a limit out of range, or one that would do nothing."""
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InvalidRequest(f"{name} {value} is not from {least} to {most}.", name)
        if self.max_line_count is not None and self.max_line_width is None:
            raise InvalidRequest("max_line_count needs max_line_width.", "max_line_count")
        if self.max_words_per_line is not None and self.max_line_width is not None:
            raise InvalidRequest(
                "max_words_per_line and max_line_width exclude each other: give one.",
                "max_words_per_line",
            )

    @property
    def across_segments(self) -> bool:
        return self.max_line_width is not None and self.max_line_count is not None


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown from `start` to `end`, in seconds; `channel` as segments have it."""

    start: float
    end: float
    lines: tuple[str, ...]
    channel: int | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What stays on one line: a word with its leading space, or a character of Chinese."""

    start: float
    end: float
    text: str


@dataclass(slots=True)
class _Open:
    """The cue that is being filled."""

    lines: list[str] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0
    last_start: float = 0.0
    num_words: int = 0
    channel: int | None = None

    def add(self, unit: _Unit, layout: Layout) -> None:
        fits = self.lines and (
            layout.max_line_width is None
            or columns(self.lines[-1]) + columns(unit.text) <= layout.max_line_width
        )
        if not self.lines:
            self.start = unit.start
        if fits:
            self.lines[-1] += unit.text
        else:
            self.lines.append(unit.text.lstrip())
        self.end, self.last_start = unit.end, unit.start
        self.num_words += 1

    def is_full(self, unit: _Unit, layout: Layout) -> bool:
        """Whether this unit has to begin another cue."""
        if layout.max_words_per_line is not None:
            return self.num_words >= layout.max_words_per_line
        if layout.max_line_width is None or layout.max_line_count is None:
            return False
        needs_line = columns(self.lines[-1]) + columns(unit.text) > layout.max_line_width
        full = needs_line and len(self.lines) >= layout.max_line_count
        return full or unit.start - self.last_start > LONG_PAUSE_S

    def closed(self) -> Cue:
        return Cue(self.start, self.end, tuple(self.lines), self.channel)


def cues(segments: Sequence[Segment], layout: Layout) -> Iterator[Cue]:
    """The cues of a recording, in order.

    By the times of words where segments have them; else a segment's time is shared out among its
    words by their width. Where channels are kept apart, each cue names its channel.
    """
    cue, previous = _Open(), None
    for segment in segments:
        parted = not layout.across_segments or (
            previous is not None and segment.channel != previous.channel
        )
        for number, unit in enumerate(_units(segment, layout.max_line_width)):
            if cue.lines and ((number == 0 and parted) or cue.is_full(unit, layout)):
                yield cue.closed()
                cue = _Open()
            cue.channel = segment.channel
            if not cue.lines and segment.channel is not None:
                cue.add(_Unit(unit.start, unit.start, channel_mark(segment.channel)), layout)
                cue.num_words = 0
                unit = _Unit(unit.start, unit.end, f" {unit.text.lstrip()}")
            cue.add(unit, layout)
        previous = segment
    if cue.lines:
        yield cue.closed()


def to_srt(segments: Sequence[Segment], layout: Layout) -> str:
    """SubRip: numbered cues, `HH:MM:SS,mmm`. Empty where nothing was said."""
    return "".join(
        f"{number}\n{span}\n{cue.text.replace('-->', '->')}\n\n"
        for number, (span, cue) in enumerate(_timed(cues(segments, layout), ","), 1)
    )


def to_vtt(segments: Sequence[Segment], layout: Layout) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/). The header alone where nothing was said."""
    shown = _timed(cues(segments, layout), ".")
    body = "".join(f"{span}\n{_escaped(cue.text)}\n\n" for span, cue in shown)
    return f"WEBVTT\n\n{body}"


def to_tsv(segments: Sequence[Segment]) -> str:
    """A row for each segment: start and end in milliseconds, text, and its channel if it has one.

    Tabs and line breaks in the text become spaces.
    """
    split = any(segment.channel is not None for segment in segments)
    rows = [("start", "end", "text", *(["channel"] if split else []))]
    for one in segments:
        start, end = _milliseconds(one.start), _milliseconds(one.end)
        channel = [str(one.channel)] if split else []
        rows.append((str(start), str(end), " ".join(one.text.split()), *channel))
    return "".join("\t".join(row) + "\n" for row in rows)


def columns(text: str) -> int:
    """How many columns a line takes: 2 for a wide character, 0 for a combining one."""
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if _is_wide(character) else 1


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in "WF"


def _units(segment: Segment, max_width: int | None) -> Iterator[_Unit]:
    """A segment's units with their times; a time is shared out by width where it has to be."""
    spoken = [_Unit(word.start, word.end, word.text) for word in segment.words]
    for one in spoken or [_Unit(segment.start, segment.end, segment.text)]:
        texts = [text for text in _split(_STRAY.sub("", one.text), max_width) if text.strip()]
        total = sum(columns(text) for text in texts) or 1
        share = (one.end - one.start) / total
        at = 0
        for text in texts:
            start, at = one.start + at * share, at + columns(text)
            yield _Unit(start, one.end if at == total else one.start + at * share, text)


def _split(text: str, max_width: int | None) -> Iterator[str]:
    """Words with a leading space where they had one; characters of scripts without spaces."""
    for match in re.finditer(r"(\s*)(\S+)", text):
        space = " " if match[1] else ""
        for number, piece in enumerate(_cut(match[2], _may_break)):
            lead = space if number == 0 else ""
            if max_width is None or columns(piece) <= max_width:
                yield lead + piece
            else:
                yield from _forced(lead, piece, max_width)


def _forced(lead: str, word: str, max_width: int) -> Iterator[str]:
    """A word wider than a line (an address, a sentence of Thai) in pieces that are not."""
    piece = ""
    for cluster in _cut(word, lambda before, after: not _is_joined(before, after)):
        if piece and columns(piece) + columns(cluster) > max_width:
            yield lead + piece
            lead = piece = ""
        piece += cluster
    yield lead + piece


def _cut(word: str, may_break: Callable[[str, str], bool]) -> list[str]:
    pieces = [word[:1]]
    for before, after in pairwise(word):
        if may_break(before, after):
            pieces.append(after)
        else:
            pieces[-1] += after
    return pieces


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters that no space parts."""
    if _is_joined(before, after) or after in _NOT_FIRST:
        return False
    if unicodedata.category(after) in ("Pe", "Pf", "Po") or unicodedata.category(before) in (
        "Ps",
        "Pi",
    ):
        return False
    return any(_is_wide(one) and not _is_hangul(one) for one in (before, after))


def _is_joined(before: str, after: str) -> bool:
    """Whether two characters are one sign: a combining mark, a joined or coloured emoji."""
    return (
        unicodedata.category(after)[0] == "M"
        or _ZERO_WIDTH_JOINER in (before, after)
        or "\U0001f3fb" <= after <= "\U0001f3ff"
    )


def _is_hangul(character: str) -> bool:
    # Wide, but Korean puts spaces between its words.
    return "\uac00" <= character <= "\ud7a3" or "\u1100" <= character <= "\u11ff"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timed(shown: Iterable[Cue], mark: str) -> Iterator[tuple[str, Cue]]:
    """Cues in the order in which they begin, with their times.

    Each lasts a millisecond at least, as WebVTT wants it, and ends before the next of its channel:
    two channels may speak at once.
    """
    ends: dict[int | None, int] = {}
    for cue in sorted(shown, key=lambda one: one.start):
        start = max(_milliseconds(cue.start), ends.get(cue.channel, 0))
        end = ends[cue.channel] = max(_milliseconds(cue.end), start + 1)
        yield f"{_clock(start, mark)} --> {_clock(end, mark)}", cue


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _clock(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{milliseconds:03d}"
