"""Explanations without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.explain.explanation import Explanation, explain
from service.profiles import BUILT_IN, Profile
from service.types import (
    SAMPLE_RATE,
    Fallback,
    Hypothesis,
    Kept,
    Reading,
    Segment,
    Timings,
    Transcript,
    Window,
    Word,
)

NUM_FRAMES = 1500
PAIRS = BUILT_IN["fast"]
Spoken = tuple[str, float, float]  # a word, with its space, and its times


def kept_of(positions: Sequence[int], sizes: Sequence[int], *, chosen: bool = False) -> Kept:
    importance = np.full(NUM_FRAMES, 1 / NUM_FRAMES, np.float32)
    importance[10] *= 4
    return Kept(np.array(positions, int), np.array(sizes, int), importance, 2, "mean", chosen)


def pairs() -> Kept:
    return kept_of(range(0, NUM_FRAMES, 2), [2] * (NUM_FRAMES // 2))


def halves() -> Kept:
    return kept_of(range(0, NUM_FRAMES, 2), [1] * (NUM_FRAMES // 2), chosen=True)


def window(start_s: float, seconds: float, index: int = 0) -> Window:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return Window(index, start_s, (0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32))


def words(*spoken: Spoken) -> tuple[Word, ...]:
    return tuple(Word(start, end, text, 0.9) for text, start, end in spoken)


def hypothesis(*spoken: Spoken, temperature: float = 0.0) -> Hypothesis:
    return Hypothesis((), -0.1, 0.0, temperature, "en", True, 750, 1500, words=words(*spoken))


def reading(one: Window, kept: Kept, profile: str = "fast", *spoken: Spoken) -> Reading:
    return Reading(one, profile, kept, hypothesis(*spoken))


def transcript(
    *spoken: Spoken,
    readings: Sequence[Reading] = (),
    fallbacks: Sequence[Fallback] = (),
    profile: str = "fast",
    language: str = "en",
) -> Transcript:
    said = words(*spoken)
    text = "".join(word.text for word in said)
    segment = Segment(0, 0, 60, text, (), -0.1, 0, 1, 0, words=said)
    return Transcript(
        *(text.strip(), language, 60.0, "made-up", profile, (segment,), 1500, 750, Timings()),
        tuple(fallbacks),
        readings=tuple(readings),
    )


def one_window(
    ours: Sequence[Spoken],
    dense: Sequence[Spoken],
    kept: Kept | None = None,
    profile: Profile = PAIRS,
    name: str = "a.wav",
) -> Explanation:
    """Of a recording of 12 s that went through the encoder once."""
    readings = [reading(window(0, 12), kept or pairs(), profile.name)]
    first = transcript(*ours, readings=readings, profile=profile.name)
    return explain(name, profile, first, transcript(*dense, profile="dense"))
