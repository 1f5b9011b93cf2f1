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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is known after `at` chunks. -1 where there is none.

    `floor`: end of the utterance before, which the next one may not begin ahead of. `begin` and
    `end`: the open utterance's speech, without padding. `first` and `last`: the stretch of speech
    that is being heard, which may still turn out to be a click. `recent`: probability and
    loudness of the newest chunks, (n, 2), for a forced cut.
    """

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
        return max(self.floor, self.begin - PADDING) if self.begin >= 0 else -1

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
        return max(self.floor, (self.first if self.first >= 0 else self.at) - PADDING)


def advance(
    state: Endpoint, probabilities: Floats, loud: Floats
) -> tuple[Endpoint, tuple[Utterance, ...]]:
    """The state after these chunks, and the utterances that ended in them, in order.

    `probabilities` and `loud` (root mean square): one value for each chunk.
    """
    ended: list[Utterance] = []
    known = np.concatenate([state.recent, np.stack([probabilities, loud], axis=1)])
    for number, probability in enumerate(probabilities.tolist(), start=len(state.recent) + 1):
        state = _heard(state, probability)
        # A stretch that has just begun may be speech or a click: it is heard out first.
        if state.begin >= 0 > state.first and state.at - state.end >= PAUSE:
            state, utterance = _close(state, min(state.end + PADDING, state.at))
            ended.append(utterance)
        elif state.begin >= 0 and state.at - state.opened >= MAX_CHUNKS:
            recent = known[max(0, number - _NUM_RECENT) : number]
            state, utterance = _close(state, _quietest(state.at, recent))
            ended.append(utterance)
    return replace(state, recent=known[-_NUM_RECENT:]), tuple(ended)


def finish(state: Endpoint) -> tuple[Endpoint, tuple[Utterance, ...]]:
    """Ends the open utterance, if there is one, where the stream stands."""
    if state.begin < 0:
        return replace(state, first=-1, last=-1), ()
    state, utterance = _close(state, min(state.end + PADDING, state.at))
    return replace(state, begin=-1, end=-1, first=-1, last=-1), (utterance,)


def _heard(state: Endpoint, probability: float) -> Endpoint:
    """One chunk more. A stretch counts once it is longer than a click."""
    at, first, last = state.at, state.first, state.last
    if first < 0 and probability >= ON:
        first = at
    if first >= 0 and probability >= OFF:
        last = at + 1
    begin, end = state.begin, state.end
    if first >= 0 and last - first >= MIN_SPEECH:
        begin, end = (begin if begin >= 0 else first), last
    if first >= 0 and at + 1 - last >= MIN_PAUSE:
        first = last = -1
    return Endpoint(at + 1, state.floor, begin, end, first, last, state.recent)


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
