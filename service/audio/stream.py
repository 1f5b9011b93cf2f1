"""Audio that arrives in messages -> 16 kHz mono, message by message."""

from __future__ import annotations

from typing import Protocol

import av
import numpy as np
import soxr

from service.audio.libav import samples_of
from service.errors import InvalidAudio
from service.types import SAMPLE_RATE, Samples

MIN_RATE, MAX_RATE = 8_000, 48_000  # Hz
MAX_CHANNELS = 2
MAX_OPUS_BYTES = 3 * 1276  # RFC 6716, 3.2.5: up to 120 ms in a packet, three frames of 20 ms CELT
_OPUS_RATE = 48_000
# What recorders send when they are asked for opus, in a container: Ogg, and Matroska or WebM.
_CONTAINERS = {b"OggS": "an Ogg page", b"\x1aE\xdf\xa3": "the head of a WebM file"}


class AudioStream(Protocol):
    """Decodes the messages of one stream, in order."""

    def check(self, message: bytes) -> None:
        """Raises InvalidAudio for a message that cannot be one of this stream, before any of it
        is taken."""

    def split(self, message: bytes) -> list[bytes]:
        """The message in parts of at most a second, each of which `decode` takes."""

    def decode(self, part: bytes) -> Samples:
        """The part's sound at 16 kHz. Raises InvalidAudio for what cannot be decoded."""


class _Resampler:
    """Mono at any rate -> 16 kHz, continued from call to call."""

    def __init__(self, rate: int) -> None:
        same = rate == SAMPLE_RATE
        self._soxr = None if same else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def __call__(self, mono: Samples) -> Samples:
        if self._soxr is None:
            return mono
        out: Samples = self._soxr.resample_chunk(mono)
        return out


class PcmStream:
    """Interleaved 16-bit little-endian PCM."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate, self._channels = rate, channels
        self._resample = _Resampler(rate)

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


class OpusStream:
    """Opus packets as they come from an encoder, one in each message, without a container."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("opus", "r")
        self._resample = _Resampler(_OPUS_RATE)

    def check(self, message: bytes) -> None:
        found = _CONTAINERS.get(message[:4])
        if found:
            raise InvalidAudio(f"The message is {found}: send opus packets without a container.")

    def split(self, message: bytes) -> list[bytes]:
        return [message]

    def decode(self, part: bytes) -> Samples:
        # An empty packet would tell the codec that the stream has ended.
        if not 0 < len(part) <= MAX_OPUS_BYTES:
            raise InvalidAudio(
                f"A message of {len(part)} bytes is not an opus packet: those have 1 to "
                f"{MAX_OPUS_BYTES:,}."
            )
        try:
            frames = self._codec.decode(av.Packet(part))
            blocks = [
                self._resample(samples_of(frame).mean(axis=1, dtype=np.float32)) for frame in frames
            ]
        except (av.FFmpegError, OSError, ValueError) as error:
            raise InvalidAudio(
                f"A message of {len(part)} bytes cannot be decoded as an opus packet."
            ) from error
        return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def open_stream(encoding: str, rate: int, channels: int) -> AudioStream:
    """A decoder for `pcm_s16le`, or for `opus`, whose packets say their rate and channels."""
    return OpusStream() if encoding == "opus" else PcmStream(rate, channels)
