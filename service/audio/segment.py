"""Recording -> windows of at most 30 s, cut where nobody speaks.

Positions below are in chunks of 32 ms, the VAD's clock, until windows are made.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.audio.vad import CHUNK_SAMPLES, speech_probabilities
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Audio, Samples, Window

Floats = npt.NDArray[np.float32]
Stretch = tuple[int, int]  # first chunk, and one past the last

CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE
ON, OFF = 0.5, 0.35  # speech begins at this probability, and ends below this one
MIN_SPEECH = 3  # chunks (96 ms); shorter is a click
MIN_PAUSE = 4  # chunks (128 ms) below `OFF` that end a stretch
_ONSET = 32  # chunks (1 s) at the beginning, where noise that sets in can pass for speech
_LOUDER = 1.1  # than what follows it is speech there
PADDING = 9  # chunks (288 ms) kept around speech: soft beginnings, breath, word endings
# Chunks (12 s) of silence that end a window. Any window is padded to 30 s, so shorter ones cost
# nothing inside it, while a window for each of a few sparse words costs an encode for each.
_LONG_PAUSE = 375
_GOOD_PAUSE = 16  # chunks (512 ms); a cut in a shorter pause risks a word
_SHORT_PAUSE_COST = 0.3  # windows; what a cut in no pause at all costs
_MAX_CHUNKS = WINDOW_SAMPLES // CHUNK_SAMPLES
_MAX_SPEECH = _MAX_CHUNKS - 2 * PADDING
_SEARCH = 8 * SAMPLE_RATE // CHUNK_SAMPLES  # where to look for a quiet place: the last 8 s
SMOOTH = 5  # chunks over which "quiet" is judged


def split(audio: Audio, vad: bool = True) -> list[Window]:
    """Cuts a recording into windows: contiguous stretches of it, in order, at most 30 s each.

    With `vad` only speech is kept, with some padding: neighbours share a window unless a long
    pause parts them, cuts fall in the longest pauses, and a recording without speech gives no
    window. Without it the windows cover everything, with no gap and no overlap, cut at the
    quietest place near the 30 s; what the VAD heard is noted all the same, as a witness to what
    the model says. Windows own their samples: one word of a long upload does not hold all of it
    in memory.
    """
    probabilities, loud = speech_probabilities(audio.samples), loudness(audio.samples)
    speech = find_speech(probabilities, loud)
    bounds = plan(speech, probabilities, loud) if vad else cover(loud)
    return [
        Window(
            index,
            first * CHUNK_S,
            _samples(audio, first, last),
            speech=_seconds_within(speech, first, last),
        )
        for index, (first, last) in enumerate(bounds)
    ]


def loudness(samples: Samples) -> Floats:
    """Root mean square of each chunk; the last one may be partly filled."""
    whole = len(samples) // CHUNK_SAMPLES * CHUNK_SAMPLES
    chunks = samples[:whole].reshape(-1, CHUNK_SAMPLES)
    power: Floats = np.einsum("ij,ij->i", chunks, chunks) / np.float32(CHUNK_SAMPLES)
    if whole < len(samples):
        power = np.append(power, np.square(samples[whole:]).mean())
    return np.sqrt(power)


def cover(loud: Floats) -> list[Stretch]:
    """All chunks in stretches of at most 30 s, each cut at its quietest place near the end."""
    return _cut_long((0, len(loud)), _MAX_CHUNKS, loud) if len(loud) else []


def plan(speech: Sequence[Stretch], probabilities: Floats, loud: Floats) -> list[Stretch]:
    """Stretches of at most 30 s that hold all `speech`: ordered, disjoint, padded."""
    restless = restlessness(probabilities, loud)
    pieces = [piece for stretch in speech for piece in _cut_long(stretch, _MAX_SPEECH, restless)]
    return _padded(_packed(pieces), len(probabilities))


def restlessness(probabilities: Floats, loud: Floats) -> Floats:
    """How bad a cut in each chunk would be: the likelier speech is and the louder it is."""
    return probabilities + loud / max(float(loud.max(initial=0)), 1e-9)


def find_speech(probabilities: Floats, loud: Floats) -> list[Stretch]:
    """Where somebody speaks, in order: likely speech without clicks and the onset of noise."""
    found = [stretch for stretch in _likely(probabilities) if stretch[1] - stretch[0] >= MIN_SPEECH]
    if found and _is_onset(found[0], probabilities, loud):
        del found[0]
    return found


def _is_onset(stretch: Stretch, probabilities: Floats, loud: Floats) -> bool:
    """Whether it is only the beginning of the recording's noise.

    The network comes from silence (`vad.led_in`), and noise that sets in can pass for a word.
    It is as loud as what follows; speech in noise is louder.
    """
    first, last = stretch
    if last > _ONSET:
        return False
    after = slice(last, last + _ONSET)
    noise = loud[after][probabilities[after] < OFF]
    power = float(np.square(loud[first:last]).mean())
    return len(noise) >= MIN_PAUSE and power < (_LOUDER * float(np.median(noise))) ** 2


def _likely(probabilities: Floats) -> list[Stretch]:
    """Runs that begin at `ON` and last until `MIN_PAUSE` chunks lie below `OFF`."""
    found: list[Stretch] = []
    first = last = -1  # last: one past the newest chunk that still counts as speech
    for at in np.flatnonzero(probabilities >= OFF).tolist():
        if first >= 0 and at - last >= MIN_PAUSE:
            found.append((first, last))
            first = -1
        if first < 0 and probabilities[at] >= ON:
            first = at
        if first >= 0:
            last = at + 1
    if first >= 0:
        found.append((first, last))
    return found


def _cut_long(stretch: Stretch, limit: int, restless: Floats) -> list[Stretch]:
    """Cuts a stretch longer than `limit` at the most restful place before each limit."""
    pieces: list[Stretch] = []
    first, last = stretch
    while last - first > limit:
        low, high = first + limit - _SEARCH, first + limit
        around = restless[low - SMOOTH // 2 : high + SMOOTH // 2 + 1]
        smooth = np.convolve(around, np.ones(SMOOTH), mode="valid")
        cut = low + int(smooth[: high - low + 1].argmin())
        pieces.append((first, cut))
        first = cut
    return [*pieces, (first, last)]


def _packed(pieces: Sequence[Stretch]) -> list[Stretch]:
    """Neighbours joined: as few windows as possible, cut in the longest pauses.

    The cheapest way to group the first j pieces, for each j. A window costs 1, and up to
    `_SHORT_PAUSE_COST` more if it begins right after a short pause.
    """
    costs, begins = [0.0], [0]
    for end in range(1, len(pieces) + 1):
        best, best_begin = float("inf"), end - 1
        for begin in range(end - 1, -1, -1):
            if pieces[end - 1][1] - pieces[begin][0] > _MAX_SPEECH:
                break
            if begin < end - 1 and _pause(pieces, begin + 1) > _LONG_PAUSE:
                break
            cost = costs[begin] + 1 + _cut_cost(pieces, begin)
            if cost < best:
                best, best_begin = cost, begin
        costs.append(best)
        begins.append(best_begin)
    groups: list[Stretch] = []
    end = len(pieces)
    while end > 0:
        begin = begins[end]
        groups.append((pieces[begin][0], pieces[end - 1][1]))
        end = begin
    return groups[::-1]


def _pause(pieces: Sequence[Stretch], index: int) -> int:
    return pieces[index][0] - pieces[index - 1][1]


def _cut_cost(pieces: Sequence[Stretch], index: int) -> float:
    if index == 0:
        return 0.0
    return _SHORT_PAUSE_COST * max(0.0, 1 - _pause(pieces, index) / _GOOD_PAUSE)


def _padded(groups: Sequence[Stretch], num_chunks: int) -> list[Stretch]:
    """Groups with `PADDING` on both sides, or half the pause where two would meet."""
    if not groups:
        return []
    middles = [(before[1] + after[0]) // 2 for before, after in pairwise(groups)]
    floors, ceilings = [0, *middles], [*middles, num_chunks]
    return [
        (max(floor, first - PADDING), min(ceiling, last + PADDING))
        for (first, last), floor, ceiling in zip(groups, floors, ceilings, strict=True)
    ]


def _seconds_within(
    speech: Sequence[Stretch], first: int, last: int
) -> tuple[tuple[float, float], ...]:
    """What of the speech lies in a window, in seconds from the window's start."""
    begins = bisect_right(speech, first, key=lambda stretch: stretch[1])
    ends = bisect_left(speech, last, key=lambda stretch: stretch[0])
    return tuple(
        ((max(begin, first) - first) * CHUNK_S, (min(end, last) - first) * CHUNK_S)
        for begin, end in speech[begins:ends]
    )


def _samples(audio: Audio, first: int, last: int) -> Samples:
    return audio.samples[first * CHUNK_SAMPLES : last * CHUNK_SAMPLES].copy()
