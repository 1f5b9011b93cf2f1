"""Samples that no microphone made, and how they are kept from silencing the rest.

A file of floats can hold anything. Sound above full scale, as in a file that counts to 32,768, is
turned down as a whole. One sample that is far above all others would turn the rest down to
nothing: it is clipped. What is not a number, or larger than any scale in use, becomes silence and
is named; where that is more than a sample here and there, the file is not audio.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from service.errors import InvalidAudio
from service.types import Notice, Samples

_ANY_SCALE = 2.0**32  # samples of 32 bits that were never scaled count to half of it
_MOST_BROKEN = 0.01  # of all samples
# A peak may be so many times as high as what nine of ten samples of the loudest block stay below:
# 24 dB; speech has 15. Up to `_HARMLESS`, turning all of it down costs no more than 12 dB.
_ABOVE_THE_REST = 16.0
_HARMLESS = 4.0
_ONE_STRETCH_S = 1.0  # broken samples this close to each other are named together
_MOST_NAMED = 20


def is_tame(block: Samples) -> bool:
    """Whether all samples are numbers within full scale."""
    return not block.size or bool(block.min() >= -1 and block.max() <= 1)


@dataclass(slots=True)
class Wild:
    """What was seen of one recording, block by block. Samples beyond `limit` are clipped."""

    limit: float = _ANY_SCALE
    peak: float = 0.0
    seconds: float = 0.0
    _level: float = 0.0  # nine of ten samples of the loudest block are below it
    _num_values: int = 0
    _num_broken: int = 0
    _broken: list[tuple[float, float]] = field(default_factory=list)  # stretches in seconds

    def passed(self, block_NC: Samples, rate: int) -> None:
        """Counts a block, wild or not, once it is dealt with."""
        self.seconds += len(block_NC) / rate
        self._num_values += block_NC.size

    def tamed(self, block_NC: Samples, rate: int) -> Samples:
        """The block without what is not sound, clipped at the limit."""
        magnitude = np.abs(block_NC)
        broken = ~(magnitude <= _ANY_SCALE)  # not a number is not smaller either
        if broken.any():
            self._note(broken, rate)
            block_NC = np.where(broken, np.float32(0), block_NC)
            magnitude[broken] = 0
        tenth = magnitude.size - 1 - magnitude.size // 10
        self._level = max(self._level, float(np.partition(magnitude, tenth, axis=None)[tenth]))
        self.peak = max(self.peak, float(magnitude.max()))
        return np.clip(block_NC, -self.limit, self.limit)

    def limit_for_all(self) -> float:
        """Where a sample begins to be wild, now that the whole recording was seen."""
        return max(_HARMLESS, _ABOVE_THE_REST * self._level)

    def losses(self) -> tuple[Notice, ...]:
        """What became silence. Raises InvalidAudio where that is too much of it."""
        if self._num_broken > _MOST_BROKEN * self._num_values:
            raise InvalidAudio("The audio holds values that are not numbers (NaN or infinity).")
        named = self._broken
        if len(named) > _MOST_NAMED:
            named = [*named[: _MOST_NAMED - 1], (named[_MOST_NAMED - 1][0], named[-1][1])]
        return tuple(
            Notice(
                "damaged_audio",
                f"Between {start:.2f} s and {end:.2f} s the audio holds samples that are not "
                "numbers; they are silent.",
                start=start,
                end=end,
            )
            for start, end in named
        )

    def _note(self, broken_NC: npt.NDArray[np.bool_], rate: int) -> None:
        self._num_broken += int(broken_NC.sum())
        at = np.flatnonzero(broken_NC.any(axis=1))
        cuts = np.flatnonzero(np.diff(at) > _ONE_STRETCH_S * rate) + 1
        for group in np.split(at, cuts):
            start = self.seconds + int(group[0]) / rate
            end = self.seconds + (int(group[-1]) + 1) / rate
            if self._broken and start - self._broken[-1][1] <= _ONE_STRETCH_S:
                start = self._broken.pop()[0]
            self._broken.append((round(start, 3), round(end, 3)))
