"""The bytes of any audio file -> float32 mono at 16 kHz, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from service.audio.container import Nameless, Seekable, check_complete
from service.audio.libav import libav_blocks
from service.audio.sndfile import open_sndfile, sndfile_blocks
from service.errors import InvalidAudio, TooLarge
from service.types import SAMPLE_RATE, Audio, Samples

_MIN_RATE, _MAX_RATE = 1_000, 1_000_000  # Hz: outside there is no speech, only a broken header


def decode(source: Seekable, max_seconds: float) -> Audio:
    """Reads a whole recording: channels averaged, resampled to 16 kHz.

    `source` is a seekable binary file; what it is shows in its content, its name is not looked
    at. Sound above full scale is turned down as a whole, not clipped. Raises InvalidAudio for
    what is not audio, is empty, corrupt or truncated (`container` says what can be detected) or
    holds NaN; TooLarge as soon as more than `max_seconds` have been unpacked, so that memory is
    bounded by the limit and not by the file.
    """
    file = Nameless(source)
    check_complete(file)
    sound = open_sndfile(file)
    blocks = libav_blocks(file) if sound is None else sndfile_blocks(sound)
    samples = _joined(_resampled(blocks), max_seconds)
    if len(samples) == 0:
        raise InvalidAudio("The audio file holds no sound: its length is zero.")
    peak = max(samples.max(), -samples.min())
    if not np.isfinite(peak):
        raise InvalidAudio("The audio holds values that are not numbers (NaN or infinity).")
    if peak > 1:
        samples /= peak
    return Audio(samples)


def _resampled(blocks: Iterable[tuple[Samples, int]]) -> Iterator[Samples]:
    """Mono blocks of any sample rate, which may change on the way, at 16 kHz."""
    rate = 0
    stream: soxr.ResampleStream | None = None
    for block, block_rate in blocks:
        if block_rate != rate:
            if stream is not None:
                yield stream.resample_chunk(np.empty(0, np.float32), last=True)
            rate = _checked_rate(block_rate)
            stream = None
            if rate != SAMPLE_RATE:
                stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        yield block if stream is None else stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _checked_rate(rate: int) -> int:
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise InvalidAudio(
            f"The audio file's sample rate is {rate} Hz; rates of {_MIN_RATE:,} to {_MAX_RATE:,} "
            "Hz can be read."
        )
    return rate


def _joined(blocks: Iterable[Samples], max_seconds: float) -> Samples:
    """One array of all blocks. Blocks are let go as they are copied: memory is not doubled."""
    parts: deque[Samples] = deque()
    num_samples = 0
    for block in blocks:
        num_samples += len(block)
        if num_samples > max_seconds * SAMPLE_RATE:
            raise TooLarge(f"The recording is longer than the limit of {max_seconds:g} seconds.")
        parts.append(block)
    joined = np.empty(num_samples, np.float32)
    at = 0
    while parts:
        part = parts.popleft()
        joined[at : at + len(part)] = part
        at += len(part)
    return joined
