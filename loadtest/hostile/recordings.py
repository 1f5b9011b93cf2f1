"""One short sound in every container and codec that this build can write, byte for byte the same
each time."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import av
import numpy as np
import numpy.typing as npt

SECONDS = 1.5
BIT_EXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no version or random number in the stream

# libavformat's and libavcodec's names, and a rate in Hz that both take.
WRITTEN = (
    *(("wav", "pcm_s16le", 16000), ("wav", "pcm_f32le", 16000), ("wav", "adpcm_ima_wav", 16000)),
    *(("wav", "pcm_u8", 8000), ("wav", "pcm_mulaw", 8000), ("wav", "pcm_s24le", 44100)),
    *(("flac", "flac", 16000), ("flac", "flac", 44100), ("ogg", "flac", 16000)),
    *(("mp3", "libmp3lame", 16000), ("mp3", "libmp3lame", 44100), ("mp2", "mp2", 32000)),
    *(("ogg", "libopus", 48000), ("ogg", "vorbis", 44100), ("webm", "libopus", 48000)),
    *(("ipod", "aac", 16000), ("mp4", "aac", 44100), ("mp4", "alac", 16000)),
    *(("mov", "pcm_s16le", 16000), ("ismv", "aac", 16000), ("adts", "aac", 16000)),
    *(("matroska", "flac", 16000), ("matroska", "pcm_s16le", 16000), ("matroska", "ac3", 48000)),
    *(("mpegts", "mp2", 16000), ("mpegts", "aac", 16000), ("mpeg", "mp2", 32000)),
    *(("avi", "libmp3lame", 16000), ("avi", "pcm_s16le", 16000), ("flv", "aac", 44100)),
    *(("3gp", "libopencore_amrnb", 8000), ("amr", "libopencore_amrnb", 8000)),
    *(("asf", "wmav2", 44100), ("ac3", "ac3", 32000), ("rm", "ac3", 32000)),
    *(("aiff", "pcm_s16be", 16000), ("caf", "pcm_s16le", 16000), ("au", "pcm_s16be", 16000)),
    *(("w64", "pcm_s16le", 16000), ("voc", "pcm_u8", 16000), ("nut", "pcm_s16le", 16000)),
    *(("wv", "wavpack", 16000), ("tta", "tta", 16000), ("sox", "pcm_s32le", 16000)),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """`name`: container, codec and rate, as `ogg/libopus/48000`."""

    name: str
    content: bytes


@cache
def recordings() -> tuple[Recording, ...]:
    """All of `WRITTEN` that this build of FFmpeg has encoders for."""
    made = []
    for container, codec, rate in WRITTEN:
        try:
            content = _written(container, codec, rate)
        except (av.error.FFmpegError, ValueError):
            continue
        made.append(Recording(f"{container}/{codec}/{rate}", content))
    return tuple(made)


def recording(name: str) -> bytes:
    """The content of one of them, by its name."""
    return next(one.content for one in recordings() if one.name == name)


def wav(samples: npt.NDArray[np.float32], rate: int) -> bytes:
    """Mono samples as a wav of 32-bit floats, whatever values they have."""
    data = samples.astype("<f4").tobytes()
    head = b"WAVEfmt " + np.array([16], "<u4").tobytes()
    head += np.array([3, 1], "<u2").tobytes() + np.array([rate, 4 * rate], "<u4").tobytes()
    head += np.array([4, 32], "<u2").tobytes() + b"data" + np.array([len(data)], "<u4").tobytes()
    return b"RIFF" + np.array([len(head) + len(data)], "<u4").tobytes() + head + data


def _written(container: str, codec: str, rate: int) -> bytes:
    """Raises av.error.FFmpegError or ValueError where the build cannot."""
    file = io.BytesIO()
    layout = "stereo" if codec in ("vorbis", "wmav2") else "mono"
    with av.open(file, "w", format=container, options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream(codec, rate=rate, options={"strict": "experimental"})
        stream.layout = layout
        if codec == "wmav2":
            stream.bit_rate = 64_000  # it has no default
        stream.codec_context.flags |= BIT_EXACT
        sound = _sound(rate)
        frame = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for made in (frame, None):
            for packet in stream.encode(made):
                out.mux(packet)
    return file.getvalue()


def _sound(rate: int) -> npt.NDArray[np.float32]:
    times_s = np.arange(round(SECONDS * rate)) / rate
    tones = np.sin(2 * np.pi * 300 * times_s) + np.sin(2 * np.pi * (400 + 200 * times_s) * times_s)
    return (0.2 * tones).astype(np.float32)
