"""What a profile made of a recording -> everything that a picture of it shows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from service.audio.mel import log_mel
from service.explain.differences import ADDED, CHANGED, MISSING, SAME, compare
from service.explain.fates import Tally, tally
from service.profiles import Profile
from service.requests import guard
from service.types import WINDOW_S, Fallback, Kept, Reading, Transcript, Word

MEL_RANGE = 2.0  # what a window spans at most, on Whisper's scale
NUM_MELS = 80

REASONS: Mapping[str, str] = {
    guard.REPETITION: "its text repeated itself",
    guard.ENDLESS: "its text did not end by itself",
    guard.EMPTY: "there was no text, though somebody speaks",
    guard.DOUBT: "the model was in doubt",
    guard.SKIPPED: "its text passed over speech",
    guard.RESTART: "its text began again",
}

Picture = npt.NDArray[np.float32]
W = TypeVar("W", "Word", "ShownWord")


@dataclass(frozen=True, slots=True)
class ShownWord:
    """A word with its times in the recording; `mark`: SAME, CHANGED, ADDED or MISSING."""

    start: float
    end: float
    text: str
    probability: float
    mark: str = SAME


@dataclass(frozen=True, slots=True)
class Pane:
    """A stretch of the recording that went through the encoder at once.

    It begins `start_s` into the recording and holds `audio_s` of it; the frames that `kept` is
    about go on to 30 s, for a model that pads its windows. `mel_FT`: its log-mel, 0 (silent) to 1,
    lowest band first, a column every 10 ms. `words`: what stands of it, `dense_words`: what dense
    makes of the same stretch. `notes`: sentences on how it was read. `part`: 0, or which rest of
    its window it is.
    """

    window: int
    part: int
    start_s: float
    audio_s: float
    kept: Kept
    mel_FT: Picture
    samples: npt.NDArray[np.float32]
    words: tuple[ShownWord, ...]
    dense_words: tuple[ShownWord, ...]
    notes: tuple[str, ...]

    @property
    def frame_s(self) -> float:
        return self.kept.frame_s or WINDOW_S / len(self.kept.importance)

    @property
    def audio_frames(self) -> int:
        """Those that hold the recording; behind them is padding."""
        num = round(self.audio_s / self.frame_s)
        return min(max(num, 1), len(self.kept.importance))

    @property
    def end_s(self) -> float:
        return self.start_s + self.audio_s

    @property
    def tally(self) -> Tally:
        return tally(self.kept)

    @property
    def title(self) -> str:
        rest = f", rest {self.part}" if self.part else ""
        return f"Window {self.window}{rest}, {clock(self.start_s)} to {clock(self.end_s)}"

    @property
    def about_frames(self) -> str:
        told = str(self.tally)
        return f"{told[0].upper()}{told[1:]}."

    @property
    def differences(self) -> str:
        """How its words differ from dense's, in words for people; "" where they do not."""
        ours = [word.mark for word in self.words]
        counts = (
            (ours.count(CHANGED), CHANGED),
            (ours.count(ADDED), ADDED),
            ([word.mark for word in self.dense_words].count(MISSING), MISSING),
        )
        return ", ".join(f"{number} {mark}" for number, mark in counts if number)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A recording under a profile, beside the same under dense; `name` is the recording's."""

    name: str
    duration_s: float
    model: str
    language: str
    profile: Profile
    panes: tuple[Pane, ...]

    @property
    def num_different(self) -> int:
        """Words that are not as dense has them: ours, and those that only dense has."""
        ours = sum(word.mark != SAME for pane in self.panes for word in pane.words)
        missing = sum(word.mark == MISSING for pane in self.panes for word in pane.dense_words)
        return ours + missing

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What stands at the head: names and figures."""
        tallies = [pane.tally for pane in self.panes]
        kept, total = sum(each.states for each in tallies), sum(each.total for each in tallies)
        facts = [
            ("model", self.model),
            ("recording", f"{self.duration_s:.2f} s"),
            ("the decoder reads", f"{kept:,} of {total:,} frames"),
        ]
        if not self.profile.is_dense:
            facts.append(("words other than dense's", str(self.num_different or "none")))
        return facts

    @property
    def about_attention(self) -> str:
        """What the drawing of it shows; for explanations with panes."""
        kept = self.panes[0].kept
        role = (
            "The frames were chosen by it."
            if kept.chosen_by_it
            else "This profile does not choose by it: it is what such a choice would have gone by."
        )
        return (
            f"Attention that a frame receives in encoder layer {kept.layer} ({kept.aggregation} "
            "of its heads), from a quarter of the average frame's, the dotted line, to eight times "
            f"as much, by doublings. {role}"
        )

    def text_headings(self, pane: Pane) -> list[str]:
        """Of the one text that there is to show, or of both where dense's is another."""
        name = self.profile.name
        if self.profile.is_dense:
            return [name]
        if not pane.differences:
            return [f"{name} and dense say the same"]
        return [f"{name}: {pane.differences}", "dense"]


def explain(name: str, profile: Profile, ours: Transcript, dense: Transcript) -> Explanation:
    """`ours`: a transcript with its readings and word times under the profile; `dense`: dense's of
    the same recording, with word times."""
    return Explanation(
        name=name,
        duration_s=ours.duration,
        model=ours.model,
        language=ours.language,
        profile=profile,
        panes=tuple(_panes(ours, dense, compares=not profile.is_dense)),
    )


def _panes(ours: Transcript, dense: Transcript, *, compares: bool) -> Iterator[Pane]:
    windows = [list(some) for _, some in groupby(ours.readings, lambda one: one.window.index)]
    starts = [readings[0].window.start_s for readings in windows]
    words = _shared_out(_words(ours), starts)
    dense_words = _shared_out(_words(dense) if compares else [], starts)
    for readings, own, theirs in zip(windows, words, dense_words, strict=True):
        nothing = (SAME,) * len(own)
        marks = compare(own, theirs, ours.language) if compares else (nothing, ())
        number = readings[0].window.index
        fallbacks = [fallback for fallback in ours.fallbacks if fallback.window == number]
        yield from _parts(readings, fallbacks, _marked(own, marks[0]), _marked(theirs, marks[1]))


def _parts(
    readings: Sequence[Reading],
    fallbacks: Sequence[Fallback],
    words: Sequence[ShownWord],
    dense_words: Sequence[ShownWord],
) -> Iterator[Pane]:
    """A pane for each stretch of a window that was encoded: all of it, and rests that were gone on
    with. Each reading but the first is there for a fallback's sake."""
    attempts = list(zip(readings, chain([None], fallbacks, repeat(None)), strict=False))
    parts = [list(some) for _, some in groupby(attempts, lambda one: one[0].window.start_s)]
    starts = [part[0][0].window.start_s for part in parts]
    own, theirs = _shared_out(words, starts), _shared_out(dense_words, starts)
    for number, part in enumerate(parts):
        first = part[0][0]
        following = starts[number + 1] if number + 1 < len(starts) else None
        yield Pane(
            window=first.window.index + 1,
            part=number,
            start_s=first.window.start_s,
            audio_s=first.window.duration_s,
            kept=first.kept,
            mel_FT=_mel(first.window.samples),
            samples=first.window.samples,
            words=tuple(own[number]),
            dense_words=tuple(theirs[number]),
            notes=tuple(_notes(number, first, part[1:], following)),
        )


def _notes(
    part: int,
    first: Reading,
    retries: Sequence[tuple[Reading, Fallback | None]],
    following: float | None,
) -> Iterator[str]:
    if part:
        yield "The text of the window ended before its speech, which was gone on with from here."
    for retry, fallback in retries:
        reason = REASONS.get(fallback.reason, fallback.reason) if fallback else "it was refused"
        heat = retry.hypothesis.temperature
        how = f"{retry.profile}, at temperature {heat:g}" if heat else retry.profile
        yield f"Read again by {how}, because {reason}."
    if retries:
        text = "".join(word.text for word in first.hypothesis.words).strip()
        said = f"which said: “{text}”" if text else "which said nothing."
        yield f"The frames below are those of the first attempt, {said}"
    if following is not None:
        yield f"Its text ended early: from {clock(following)} on it was read once more, below."


def clock(seconds: float) -> str:
    """`1:02.50`."""
    hundredths = round(100 * seconds)
    return f"{hundredths // 6000}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _words(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words]


def _shared_out(words: Sequence[W], starts: Sequence[float]) -> list[list[W]]:
    """Each word in the stretch in which its middle is; a stretch lasts until the next begins."""
    stretches: list[list[W]] = [[] for _ in starts]
    for word in words:
        middle = (word.start + word.end) / 2
        if stretches:
            stretches[max(0, bisect_right(starts, middle) - 1)].append(word)
    return stretches


def _marked(words: Sequence[Word], marks: Sequence[str]) -> tuple[ShownWord, ...]:
    return tuple(
        ShownWord(word.start, word.end, word.text, word.probability, mark)
        for word, mark in zip(words, marks, strict=True)
    )


def _mel(samples: npt.NDArray[np.float32]) -> Picture:
    mel_FT = log_mel([samples], NUM_MELS)[0].numpy()
    loudest = mel_FT.max()
    above: Picture = np.clip((mel_FT - loudest) / MEL_RANGE + 1, 0, 1)
    return above
