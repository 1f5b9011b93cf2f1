"""Samples of a stream, appended at its end and let go at its beginning."""

from __future__ import annotations

import numpy as np

from service.types import SAMPLE_RATE, Samples

_LEAST = 4 * SAMPLE_RATE


class SampleBuffer:
    """The samples from `first` up to `last` of a stream, counted from its beginning.

    Appending copies each sample a bounded number of times on average.
    """

    def __init__(self) -> None:
        self._held = np.empty(_LEAST, np.float32)
        self._low = self._high = 0
        self.first = 0

    def __len__(self) -> int:
        return self._high - self._low

    @property
    def last(self) -> int:
        return self.first + len(self)

    def append(self, samples: Samples) -> None:
        if self._high + len(samples) > len(self._held):
            kept = self._held[self._low : self._high]
            self._held = np.empty(max(_LEAST, 2 * (len(kept) + len(samples))), np.float32)
            self._held[: len(kept)] = kept
            self._low, self._high = 0, len(kept)
        self._held[self._high : self._high + len(samples)] = samples
        self._high += len(samples)

    def drop_before(self, at: int) -> None:
        """Lets go of what lies before sample `at` of the stream."""
        num = min(max(0, at - self.first), len(self))
        self._low += num
        self.first += num

    def copy(self, first: int, last: int) -> Samples:
        """Samples `first` to `last` of the stream, all of which must be held."""
        if not self.first <= first <= last <= self.last:
            raise IndexError(f"{first} to {last} is not in {self.first} to {self.last}")
        low = self._low + first - self.first
        return self._held[low : low + last - first].copy()
