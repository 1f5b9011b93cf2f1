"""Corpus word error rates and their differences, with 95% intervals by bootstrap over items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
LOW, HIGH = 2.5, 97.5  # percentiles
_CHUNK = 1_000_000  # numbers drawn at a time

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and the ends of its 95% interval."""

    value: float
    low: float
    high: float


def error_rate(errors: Sequence[float], words: Sequence[float], seed: int = 0) -> Estimate:
    """All errors over all words, of items that have so many each. NaN where there are no words."""
    return _ratio(np.asarray(errors, np.float64), np.asarray(words, np.float64), seed)


def difference(
    errors: Sequence[float],
    reference_errors: Sequence[float],
    words: Sequence[int],
    seed: int = 0,
) -> Estimate:
    """Error rate less that of the reference, on the same items.

    The interval is of the paired difference: what both find hard in an item cancels out.
    """
    more = np.asarray(errors, np.float64) - np.asarray(reference_errors, np.float64)
    return _ratio(more, np.asarray(words, np.float64), seed)


def _ratio(counts: Floats, words: Floats, seed: int) -> Estimate:
    """Sum of counts over sum of words, and its percentile interval over resampled items."""
    total = words.sum()
    if not total:
        return Estimate(np.nan, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    num_items = len(counts)
    at_once = max(1, _CHUNK // num_items)
    ratios: list[Floats] = []
    for first in range(0, RESAMPLES, at_once):
        shape = (min(at_once, RESAMPLES - first), num_items)
        chosen = rng.integers(num_items, size=shape)
        # Resamples without a word have no rate; they are as rare as items with words are many.
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(counts[chosen].sum(axis=1) / words[chosen].sum(axis=1))
    every = np.concatenate(ratios)
    low, high = np.percentile(every[np.isfinite(every)], [LOW, HIGH])
    return Estimate(float(counts.sum() / total), float(low), float(high))


def least_words(points: float) -> int:
    """Words of reference without which it cannot be shown, at 95%, that a rate is at most so many
    percentage points higher.

    Where not one error more is seen in n words, up to -ln(2.5%) / n may still be made ("rule of
    three"; of one side of a 95% interval): a bootstrap of no differences would say 0.
    """
    return math.ceil(-math.log(LOW / 100) / (points / 100))
