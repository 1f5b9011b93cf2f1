"""Mono at any rate to 16 kHz, block by block."""

from __future__ import annotations

import numpy as np
import soxr

from service.types import SAMPLE_RATE, Samples

G711_RATE = 8_000  # Hz


class Resampler:
    """Continued from call to call."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._soxr = self._new()

    def __call__(self, mono: Samples) -> Samples:
        if self._soxr is None:
            return mono
        out: Samples = self._soxr.resample_chunk(mono)
        return out

    def rest(self) -> Samples:
        """What it holds back until it knows what follows; silence does, and it starts anew."""
        if self._soxr is None:
            return np.empty(0, np.float32)
        out: Samples = self._soxr.resample_chunk(np.empty(0, np.float32), last=True)
        self._soxr = self._new()
        return out

    @property
    def num_held(self) -> int:
        return 0 if self._soxr is None else round(self._soxr.delay())

    def _new(self) -> soxr.ResampleStream | None:
        if self._rate == SAMPLE_RATE:
            return None
        return soxr.ResampleStream(self._rate, SAMPLE_RATE, 1, dtype="float32")
