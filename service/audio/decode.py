"""The bytes of any audio file -> float32 at 16 kHz, mixed or by channel, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from service.audio.container import Seekable
from service.audio.recording import recording_blocks as _blocks
from service.errors import InvalidAudio, InvalidRequest, TooLarge
from service.types import SAMPLE_RATE, Audio, Notice, Samples

_MIN_RATE, _MAX_RATE = 1_000, 1_000_000  # Hz: outside there is no speech, only a broken header
MAX_CHANNELS = 8  # that are kept apart; more is a studio's mix, no call

Blocks = Iterable[tuple[Samples, int]]  # (n, channels) samples, and their rate in Hz


def decode(source: Seekable, max_seconds: float) -> Audio:
    """Reads a whole recording: channels averaged, resampled to 16 kHz.

    `source` is a seekable binary file; what it is shows in its content, its name is not looked
    at. What is damaged or cut off is read as far as it goes: silence stands for it, and `losses`
    names it. Sound above full scale is turned down as a whole, not clipped. Raises InvalidAudio
    for what is not audio, is empty, has nothing that decodes or holds NaN; TooLarge as soon as
    more than `max_seconds` have been unpacked, so that memory is bounded by the limit and not by
    the file.
    """
    losses: list[Notice] = []
    blocks = ((_mixed(block), rate) for block, rate in _blocks(source, losses))
    (mono,) = _decoded(blocks, max_seconds, losses)
    return mono


def decode_channels(source: Seekable, max_seconds: float) -> list[Audio]:
    """As `decode`, with every channel a recording of its own, all of one length.

    The seconds of all channels together count against `max_seconds`: the memory is the same.
    Raises InvalidRequest for more than 8 channels, InvalidAudio where their number changes.
    """
    losses: list[Notice] = []
    return _decoded(_same_channels(_blocks(source, losses)), max_seconds, losses)


def _mixed(block_NC: Samples) -> Samples:
    mono_N1: Samples = block_NC.mean(axis=1, keepdims=True, dtype=np.float32)
    return mono_N1


def _same_channels(blocks: Blocks) -> Blocks:
    num_channels = 0
    for block, rate in blocks:
        num_channels = num_channels or block.shape[1]
        if num_channels > MAX_CHANNELS:
            raise InvalidRequest(
                f"channels=split keeps at most {MAX_CHANNELS} channels apart, and the recording "
                f"has {num_channels}; use channels=mix",
                "channels",
            )
        if block.shape[1] != num_channels:
            raise InvalidAudio(
                f"The recording has {num_channels} channels and later {block.shape[1]}: they "
                "cannot be kept apart."
            )
        yield block, rate


def _decoded(blocks: Blocks, max_seconds: float, losses: list[Notice]) -> list[Audio]:
    samples_CN = _joined(_resampled(blocks), max_seconds)
    if samples_CN.size == 0:
        raise InvalidAudio("The audio file holds no sound: its length is zero.")
    peak = max(samples_CN.max(), -samples_CN.min())
    if not np.isfinite(peak):
        raise InvalidAudio("The audio holds values that are not numbers (NaN or infinity).")
    if peak > 1:
        samples_CN /= peak
    return [Audio(samples, tuple(losses)) for samples in samples_CN]


def _resampled(blocks: Blocks) -> Iterator[Samples]:
    """Blocks (n, channels) of any sample rate, which may change on the way, at 16 kHz."""
    rate = num_channels = 0
    stream: soxr.ResampleStream | None = None
    for block, block_rate in blocks:
        if block_rate != rate:
            if stream is not None:
                yield stream.resample_chunk(_nothing(num_channels), last=True)
            rate, num_channels = _checked_rate(block_rate), block.shape[1]
            stream = None
            if rate != SAMPLE_RATE:
                stream = soxr.ResampleStream(rate, SAMPLE_RATE, num_channels, dtype="float32")
        yield block if stream is None else stream.resample_chunk(block)
    if stream is not None:
        yield stream.resample_chunk(_nothing(num_channels), last=True)


def _nothing(num_channels: int) -> Samples:
    return np.empty((0, num_channels), np.float32)


def _checked_rate(rate: int) -> int:
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise InvalidAudio(
            f"The audio file's sample rate is {rate} Hz; rates of {_MIN_RATE:,} to {_MAX_RATE:,} "
            "Hz can be read."
        )
    return rate


def _joined(blocks: Iterable[Samples], max_seconds: float) -> Samples:
    """All blocks (n, channels) as one array (channels, n).

    Blocks are let go as they are copied: memory is not doubled.
    """
    parts: deque[Samples] = deque()
    num_values = num_channels = 0
    for block in blocks:
        num_channels = block.shape[1]
        num_values += block.size
        if num_values > max_seconds * SAMPLE_RATE:
            channels = f", its {num_channels} channels together" if num_channels > 1 else ""
            raise TooLarge(
                f"The recording is longer than the limit of {max_seconds:g} seconds{channels}."
            )
        parts.append(block)
    joined = np.empty((num_channels, num_values // max(num_channels, 1)), np.float32)
    at = 0
    while parts:
        part = parts.popleft()
        joined[:, at : at + len(part)] = part.T
        at += len(part)
    return joined
