"""m4a, mp4, webm and whatever else libav can read, safely.

A media file is a program for its parser: playlists, concatenations and session descriptions tell
libav to open other files and addresses. Only plain containers and audio codecs are let in, and
any attempt to open something else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import av.logging
import numpy as np

from service.audio.container import Seekable
from service.errors import InvalidAudio
from service.types import Samples

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,flac,wav,w64,aiff,caf,amr,asf,avi,mpegts"
)
_CODECS = (
    "aac,aac_latm,ac3,adpcm_ima_wav,adpcm_ms,alac,amrnb,amrwb,eac3,flac,gsm_ms,mp1float,mp2float,"
    "mp3,mp3float,opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,"
    "pcm_s16le,pcm_s24be,pcm_s24le,pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis,"
    "wmapro,wmav1,wmav2"
)
_BLOCK_SECONDS = 1
_ERRORS = (av.FFmpegError, OSError, ValueError)

av.logging.set_level(None)  # nothing of a user's file goes to stderr


def libav_blocks(file: Seekable) -> Iterator[tuple[Samples, int]]:
    """Blocks (n, channels) of about 1 s, each with its sample rate, of the first audio stream.

    Raises InvalidAudio if libav cannot read the file, it has no audio, or it is corrupt.
    """
    file.seek(0)
    try:
        container = av.open(
            file,
            mode="r",
            metadata_errors="replace",
            container_options={"format_whitelist": _FORMATS, "codec_whitelist": _CODECS},
            io_open=_refuse,
        )
    except _ERRORS as error:
        raise InvalidAudio(
            "This is not an audio file that can be read. Use wav, flac, ogg, opus, mp3, m4a, mp4 "
            "or webm."
        ) from error
    with container:
        if not container.streams.audio:
            raise InvalidAudio("The file has no audio track.")
        try:
            yield from _joined(container.decode(container.streams.audio[0]))
        except _ERRORS as error:
            raise InvalidAudio(
                "The audio file is corrupt or truncated: it cannot be decoded to its end."
            ) from error


def _joined(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[Samples, int]]:
    """Frames of some 20 ms joined to blocks: one resampling call a second, not fifty."""
    parts: list[Samples] = []
    num_samples = rate = 0
    for frame in frames:
        samples_NC = samples_of(frame)
        changed = parts and (frame.sample_rate, samples_NC.shape[1]) != (rate, parts[0].shape[1])
        if parts and (changed or num_samples >= _BLOCK_SECONDS * rate):
            yield np.concatenate(parts), rate
            parts, num_samples = [], 0
        rate = frame.sample_rate
        parts.append(samples_NC)
        num_samples += frame.samples
    if parts:
        yield np.concatenate(parts), rate


def samples_of(frame: av.AudioFrame) -> Samples:
    """A frame's samples (n, channels), float32. Integer samples are scaled to [-1, 1]."""
    values = frame.to_ndarray()  # (channels, n), or (1, n * channels) where they are interleaved
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    samples_NC: Samples = values.T.astype(np.float32)
    if values.dtype.kind in "iu":
        full_scale = float(1 << 8 * values.dtype.itemsize - 1)
        samples_NC /= np.float32(full_scale)
        if values.dtype.kind == "u":
            samples_NC -= 1
    return samples_NC


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    raise PermissionError("an audio file may not open another file")
