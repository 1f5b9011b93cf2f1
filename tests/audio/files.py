"""Audio files of every kind, made in memory, and sounds to put in them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile

from service.audio.decode import decode
from service.types import Samples

RATE = 16_000
SPEECH_FILE = Path(__file__).with_name("digits.wav")


def speech() -> Samples:
    """A synthetic voice that says some digits."""
    with SPEECH_FILE.open("rb") as file:
        return decode(file, 60).samples


def of(data: bytes, max_seconds: float = 60.0) -> Samples:
    """What `data` decodes to."""
    audio = decode(io.BytesIO(data), max_seconds)
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    return audio.samples


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> Samples:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def noise(seconds: float, seed: int = 0, rms: float = 0.1) -> Samples:
    values = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (rms * values).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def by_soundfile(
    samples: Samples, kind: str, subtype: str | None = None, rate: int = RATE, channels: int = 1
) -> bytes:
    """`samples` on every channel, in a container that libsndfile writes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype=subtype, format=kind) as file:
        for at in range(0, len(samples), rate):  # its Vorbis encoder overflows on long blocks
            file.write(np.repeat(samples[at : at + rate, None], channels, axis=1))
    return buffer.getvalue()


def by_libav(
    samples: Samples,
    kind: str,
    codec: str,
    rate: int = RATE,
    options: dict[str, str] | None = None,
    seekable: bool = True,
    with_video: bool = False,
) -> bytes:
    """`samples` at `rate` in a container that libav writes; not seekable is a live recording."""
    buffer = io.BytesIO() if seekable else _Pipe()
    with av.open(buffer, "w", format=kind, options=options or {}) as container:
        video = container.add_stream("mpeg4", rate=25) if with_video else None
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if video is not None:
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for _ in range(round(25 * len(samples) / rate)):
                container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format.name, "mono", rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False
