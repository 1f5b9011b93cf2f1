"""What FFmpeg decodes of the messages of a stream: opus packets, and G.711's table of samples."""

from __future__ import annotations

from functools import cache

import av
import numpy as np

from service.audio.libav import samples_of
from service.audio.resample import G711_RATE, Resampler
from service.errors import InvalidAudio
from service.types import Samples

MAX_OPUS_BYTES = 3 * 1276  # RFC 6716, 3.2.5: up to 120 ms in a packet, three frames of 20 ms CELT
_OPUS_RATE = 48_000
# What recorders send when they are asked for opus, in a container: Ogg, and Matroska or WebM.
_CONTAINERS = {b"OggS": "an Ogg page", b"\x1aE\xdf\xa3": "the head of a WebM file"}


class OpusStream:
    """Opus packets as they come from an encoder, one in each message, without a container."""

    def __init__(self) -> None:
        self._codec = av.CodecContext.create("opus", "r")
        self._resample = Resampler(_OPUS_RATE)

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

    def rest(self) -> Samples:
        return self._resample.rest()

    @property
    def num_held(self) -> int:
        return self._resample.num_held


@cache
def g711_values(law: str) -> Samples:
    """The sample that each of the 256 bytes stands for, in [-1, 1]. `law`: `mulaw` or `alaw`."""
    codec = av.CodecContext.create(f"pcm_{law}", "r")
    codec.sample_rate, codec.layout = G711_RATE, "mono"
    (frame,) = codec.decode(av.Packet(bytes(range(256))))
    return samples_of(frame)[:, 0]
