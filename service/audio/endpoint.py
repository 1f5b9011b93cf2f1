"""Where an utterance begins and ends, while it is still being said. Pure: state and values in.

Positions are chunks of 32 ms since the stream's beginning, the VAD's clock; no other time is read,
so a stream gives the same utterances however fast it arrives and however it is cut into calls.
What counts as speech is what `segment` says of a whole recording, but for noise that sets in at its
beginning, which only what follows tells from a word.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from service.audio.segment import (
    MIN_PAUSE,
    MIN_SPEECH,
    OFF,
    ON,
    PADDING,
    SMOOTH,
    Floats,
    restlessness,
)
from service.audio.vad import CHUNK_SAMPLES
from service.types import SAMPLE_RATE

# Chunks (448 ms) below `OFF` that end an utterance: longer than the stops inside words and most
# of those between them, and half of the second in which an answer is promised.
PAUSE = 14
MAX_CHUNKS = 28 * SAMPLE_RATE // CHUNK_SAMPLES  # of one utterance, its padding included
_NUM_RECENT = 8 * SAMPLE_RATE // CHUNK_SAMPLES  # a forced cut looks for quiet in the last 8 s


class Utterance(NamedTuple):
    """A finished stretch of speech with its padding: first chunk, and one past the last."""

    first: int
    last: int


class Begun(NamedTuple):
    """Somebody began to speak: the first chunk of the utterance to come, padding included."""

    first: int


class Ended(NamedTuple):
    """An utterance ended where the stream stood `at`. `paused`: by a pause; else it was cut off,
    and the speech may go on."""

    utterance: Utterance
    at: int
    paused: bool


Mark = Begun | Ended


@dataclass(frozen=True, slots=True)
class Manner:
    """How speech is told from what lies between. `on`, `off`: the probability at which it begins,
    and the one below which it ends. `before`: chunks kept in front of it; `pause`: chunks without
    it that end an utterance, effectively no fewer than `MIN_PAUSE`."""

    on: float = ON
    off: float = OFF
    before: int = PADDING
    pause: int = PAUSE


USUAL = Manner()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is known after `at` chunks. -1 where there is none.

    `floor`: end of the utterance before, which the next one may not begin ahead of. `begin` and
    `end`: the open utterance's speech, without padding. `first` and `last`: the stretch of speech
    that is being heard, which may still turn out to be a click. `recent`: probability and
    loudness of the newest chunks, (n, 2), for a forced cut.
    """

    manner: Manner = USUAL
    at: int = 0
    floor: int = 0
    begin: int = -1
    end: int = -1
    first: int = -1
    last: int = -1
    recent: Floats = field(default_factory=lambda: np.empty((0, 2), np.float32))

    @property
    def opened(self) -> int:
        """Where the open utterance begins, padding included; -1 where nobody speaks."""
        return max(self.floor, self.begin - self.manner.before) if self.begin >= 0 else -1

    @property
    def likely(self) -> Utterance | None:
        """The utterance that ends if the pause goes on, once all its padding is known."""
        if self.begin < 0 or self.first >= 0 or self.at - self.end < PADDING:
            return None
        return Utterance(self.opened, self.end + PADDING)

    @property
    def needed_from(self) -> int:
        """The first chunk that an utterance to come may still contain."""
        if self.begin >= 0:
            return self.opened
        start = self.first if self.first >= 0 else self.at
        return max(self.floor, start - self.manner.before)


def advance(
    state: Endpoint, probabilities: Floats, loud: Floats
) -> tuple[Endpoint, tuple[Mark, ...]]:
    """The state after these chunks, and what began and ended in them, in order.

    `probabilities` and `loud` (root mean square): one value for each chunk.
    """
    marks: list[Mark] = []
    known = np.concatenate([state.recent, np.stack([probabilities, loud], axis=1)])
    for number, probability in enumerate(probabilities.tolist(), start=len(state.recent) + 1):
        silent = state.begin < 0
        state = _heard(state, probability)
        if silent and state.begin >= 0:
            marks.append(Begun(state.opened))
        # A stretch that has just begun may be speech or a click: it is heard out first.
        if state.begin >= 0 > state.first and state.at - state.end >= state.manner.pause:
            state, utterance = _close(state, min(state.end + PADDING, state.at))
            marks.append(Ended(utterance, state.at, paused=True))
        elif state.begin >= 0 and state.at - state.opened >= MAX_CHUNKS:
            recent = known[max(0, number - _NUM_RECENT) : number]
            state, utterance = _close(state, _quietest(state.at, recent))
            # Where the cut fell behind the last word, silence follows and nothing goes on.
            marks.append(Ended(utterance, state.at, paused=state.begin < 0))
    return replace(state, recent=known[-_NUM_RECENT:]), tuple(marks)


def finish(state: Endpoint) -> tuple[Endpoint, tuple[Ended, ...]]:
    """Ends the open utterance, if there is one, where the stream stands."""
    if state.begin < 0:
        return replace(state, first=-1, last=-1), ()
    state, utterance = _close(state, min(state.end + PADDING, state.at))
    state = replace(state, begin=-1, end=-1, first=-1, last=-1)
    return state, (Ended(utterance, state.at, paused=False),)


def clear(state: Endpoint) -> Endpoint:
    """Forgets the open utterance; nothing before this may be part of a later one."""
    return Endpoint(state.manner, at=state.at, floor=state.at)


def change(state: Endpoint, manner: Manner, held_from: int) -> Endpoint:
    """Another manner from here on. Chunks before `held_from` are let go of already, and an open
    utterance begins where it was said to begin, or later."""
    floor = max(state.floor, held_from, state.opened)
    return replace(state, manner=manner, floor=floor)


def _heard(state: Endpoint, probability: float) -> Endpoint:
    """One chunk more. A stretch counts once it is longer than a click."""
    at, first, last = state.at, state.first, state.last
    if first < 0 and probability >= state.manner.on:
        first = at
    if first >= 0 and probability >= state.manner.off:
        last = at + 1
    begin, end = state.begin, state.end
    if first >= 0 and last - first >= MIN_SPEECH:
        begin, end = (begin if begin >= 0 else first), last
    if first >= 0 and at + 1 - last >= MIN_PAUSE:
        first = last = -1
    return Endpoint(state.manner, at + 1, state.floor, begin, end, first, last, state.recent)


def _close(state: Endpoint, cut: int) -> tuple[Endpoint, Utterance]:
    """Ends the open utterance at `cut`; speech that goes on after it opens the next one."""
    utterance = Utterance(state.opened, cut)
    state = replace(state, floor=cut)
    if state.last <= cut:
        state = replace(state, first=-1, last=-1)
    if state.end > cut:
        return replace(state, begin=cut), utterance
    return replace(state, begin=-1, end=-1), utterance


def _quietest(at: int, recent: Floats) -> int:
    """The most restful of the newest chunks before `at`, as `segment` judges it in recordings."""
    restless = restlessness(recent[:, 0], recent[:, 1])
    smooth = np.convolve(restless, np.ones(SMOOTH), mode="valid")
    return at - len(restless) + SMOOTH // 2 + int(smooth.argmin())
