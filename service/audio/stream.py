"""Audio that arrives in messages -> 16 kHz mono, message by message."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from service.audio.resample import G711_RATE, Resampler
from service.errors import InvalidAudio
from service.types import Samples

MIN_RATE, MAX_RATE = 8_000, 48_000  # Hz
MAX_CHANNELS = 2


class AudioStream(Protocol):
    """Decodes the messages of one stream, in order."""

    def check(self, message: bytes) -> None:
        """Raises InvalidAudio for a message that cannot be one of this stream, before any of it
        is taken."""

    def split(self, message: bytes) -> list[bytes]:
        """The message in parts of at most a second, each of which `decode` takes."""

    def decode(self, part: bytes) -> Samples:
        """The part's sound at 16 kHz. Raises InvalidAudio for what cannot be decoded."""

    def rest(self) -> Samples:
        """The end of what was decoded so far, as far as it was held back."""

    @property
    def num_held(self) -> int:
        """Samples that `rest` would give, up to 70 ms: a resampler waits for what follows."""


class PcmStream:
    """Interleaved 16-bit little-endian PCM."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        self._resample = Resampler(rate)

    def check(self, message: bytes) -> None:
        step = 2 * self._channels
        if len(message) % step:
            raise InvalidAudio(
                f"A message of {len(message)} bytes is not whole samples: 16-bit PCM with "
                f"{self._channels} channel{'s' * (self._channels > 1)} comes in multiples of "
                f"{step} bytes."
            )

    def split(self, message: bytes) -> list[bytes]:
        second = 2 * self._channels * self._rate
        return [message[at : at + second] for at in range(0, len(message), second)]

    def decode(self, part: bytes) -> Samples:
        values = np.frombuffer(part, "<i2").reshape(-1, self._channels)
        mono: Samples = values.mean(axis=1, dtype=np.float32) / np.float32(32768)
        return self._resample(mono)

    def rest(self) -> Samples:
        return self._resample.rest()

    @property
    def num_held(self) -> int:
        return self._resample.num_held


class G711Stream:
    """G.711: mono at 8 kHz, a byte a sample, which `values` has for each."""

    def __init__(self, values: Samples) -> None:
        self._values = values
        self._resample = Resampler(G711_RATE)

    def check(self, message: bytes) -> None:
        """Any bytes are samples."""

    def split(self, message: bytes) -> list[bytes]:
        return [message[at : at + G711_RATE] for at in range(0, len(message), G711_RATE)]

    def decode(self, part: bytes) -> Samples:
        return self._resample(self._values[np.frombuffer(part, np.uint8)])

    def rest(self) -> Samples:
        return self._resample.rest()

    @property
    def num_held(self) -> int:
        return self._resample.num_held


def open_stream(encoding: str, rate: int, channels: int) -> AudioStream:
    """A decoder for `pcm_s16le`; for `opus`, whose packets say their rate and channels; or for
    `pcmu` and `pcma`, which have but one of each."""
    # FFmpeg is loaded where somebody comes with what it decodes: 15 MB, and it is strangers' input.
    match encoding:
        case "opus":
            from service.audio.packets import OpusStream

            return OpusStream()
        case "pcmu" | "pcma":
            from service.audio.packets import g711_values

            return G711Stream(g711_values("mulaw" if encoding == "pcmu" else "alaw"))
    return PcmStream(rate, channels)
