"""What training batches are drawn from, and when: a curriculum is a mix after another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from service.profiles import BUILT_IN, Profile


@dataclass(frozen=True, slots=True)
class Mix:
    """What a batch is drawn from until step `until`.

    `long_share` of the batches are whole 30 s windows, `lone_share` of these with one utterance;
    `packed_share` are rows full of speech; the others are short windows. `digit_share` of the
    utterances are strings of digits, the others sentences, of at most `most_words` words; in
    `alike_share` of what holds several, all are of one kind, as they are in what people record.
    SpecAugment hides stripes of `masked` of the rows. The encoder drops `dropped` of the frames of
    packed rows, evenly, and of `winnowed_share` of the whole windows some, by attention.
    """

    until: float
    long_share: float
    most_words: int
    perturbed: float
    batch_share: float = 1.0
    lone_share: float = 0.5
    packed_share: float = 0.0
    dropped: float = 0.0
    winnowed_share: float = 0.0
    digit_share: float = 1.0
    alike_share: float = 0.0
    masked: float = 0.0

    def digit_share_of_one(self, rng: np.random.Generator) -> float:
        """Of what is put together from several utterances: all digits, none, or some."""
        if rng.random() >= self.alike_share:
            return self.digit_share
        return float(rng.random() < self.digit_share)

    def profile_of_window(self, rng: np.random.Generator) -> Profile:
        """Of a whole window: frames dropped by attention, as the service does it, or none."""
        if rng.random() >= self.winnowed_share:
            return BUILT_IN["dense"]
        layer, sparsity = int(rng.integers(1, 5)), float(rng.uniform(0.2, 0.8))
        return Profile("training", layer, sparsity)


Curriculum = tuple[Mix, ...]

# Short, little perturbed strings until attention aligns; then everything, and 30 s windows; at last
# windows full of digits, in which it has to keep its place.
DIGITS_STEPS = 12_250
DIGITS_FIRST: Curriculum = (
    Mix(1200, 0.0, most_words=3, perturbed=0.3, batch_share=0.5),
    Mix(2250, 0.03, most_words=10, perturbed=0.7, masked=1.0),
    Mix(4000, 0.2, most_words=10, perturbed=0.9, masked=1.0),
    Mix(DIGITS_STEPS, 0.45, most_words=10, perturbed=0.8, masked=1.0),
    Mix(math.inf, 0.5, most_words=20, perturbed=0.7, lone_share=0.2, masked=1.0),
)
# English goes on from a model of digits, whose steps it counts on. Until its words are found, the
# more speech it hears in an hour of training the better: rows without pauses, at half the frames.
# Then whole windows too, of which it learns to spare what it does not attend to; then both again.
_PACKED = Mix(
    DIGITS_STEPS + 17_000,
    0.04,
    most_words=32,
    perturbed=0.3,
    packed_share=0.9,
    dropped=0.5,
    digit_share=0.2,
)
_WHOLE = Mix(
    math.inf,
    0.4,
    most_words=32,
    perturbed=0.6,
    lone_share=0.3,
    packed_share=0.5,
    dropped=0.5,
    winnowed_share=0.6,
    digit_share=0.35,
    alike_share=0.7,
)
ENGLISH: Curriculum = (
    _PACKED,
    replace(_WHOLE, until=DIGITS_STEPS + 20_000, alike_share=0.0),
    replace(_WHOLE, until=DIGITS_STEPS + 23_750, alike_share=0.0, masked=1.0),
    replace(
        _PACKED,
        until=DIGITS_STEPS + 28_000,
        long_share=0.12,
        packed_share=0.8,
        winnowed_share=0.6,
        alike_share=0.7,
    ),
    replace(_WHOLE, until=DIGITS_STEPS + 30_000, masked=0.2),
    replace(_WHOLE, lone_share=0.2, digit_share=0.4, alike_share=1.0, masked=0.5),
)


def has_sentences(curriculum: Curriculum) -> bool:
    """Whether any of its mixes draws more than digits."""
    return any(mix.digit_share < 1 for mix in curriculum)


def mix_at(curriculum: Curriculum, step: int) -> Mix:
    """The mix of a step."""
    return next(mix for mix in curriculum if step < mix.until)
