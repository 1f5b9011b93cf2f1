"""The bytes of any audio file -> float32 at 16 kHz, mixed or by channel, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
import soxr

from service.audio.container import Seekable
from service.audio.recording import recording_blocks as _blocks
from service.audio.wild import Wild, is_tame
from service.errors import InvalidAudio, InvalidRequest, TooLarge
from service.types import SAMPLE_RATE, Audio, Notice, Samples

_MIN_RATE, _MAX_RATE = 1_000, 1_000_000  # Hz: outside there is no speech, only a broken header
MAX_CHANNELS = 8  # that are kept apart; more is a studio's mix, no call

Blocks = Iterable[tuple[Samples, int]]  # (n, channels) samples, and their rate in Hz


class Reel(Protocol):
    """Where samples at 16 kHz go, block after block."""

    def append(self, block_NC: Samples) -> None: ...
    def clear(self) -> None: ...
    def channels(self) -> list[Samples]:
        """What was appended, an array for each channel that may be written to."""


def decode(source: Seekable, max_seconds: float, reel: Reel | None = None) -> Audio:
    """Reads a whole recording: channels averaged, resampled to 16 kHz.

    `source` is a seekable binary file; what it is shows in its content, its name is not looked
    at. The samples are on the `reel`, or in memory of their own. Sound above full scale is turned
    down as a whole, not clipped, but for what is `wild`. What could not be read is silence, and
    named in `losses`. Raises InvalidAudio for what is not audio or has none that can be decoded;
    TooLarge as soon as more than `max_seconds` have been unpacked, so that memory is bounded by
    the limit and not by the file.
    """

    def blocks(losses: list[Notice]) -> Blocks:
        return _blocks(source, losses)

    (mono,) = _decoded(blocks, _mixed, max_seconds, reel or _Parts())
    return mono


def decode_channels(source: Seekable, max_seconds: float, reel: Reel | None = None) -> list[Audio]:
    """As `decode`, with every channel a recording of its own, all of one length.

    The seconds of all channels together count against `max_seconds`: the memory is the same.
    Raises InvalidRequest for more than 8 channels, InvalidAudio where their number changes.
    """

    def blocks(losses: list[Notice]) -> Blocks:
        return _same_channels(_blocks(source, losses))

    return _decoded(blocks, _unmixed, max_seconds, reel or _Parts())


def _mixed(block_NC: Samples) -> Samples:
    with np.errstate(over="ignore", invalid="ignore"):  # `wild` deals with it
        mono_N1: Samples = block_NC.mean(axis=1, keepdims=True, dtype=np.float32)
    return mono_N1


def _unmixed(block_NC: Samples) -> Samples:
    return block_NC


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


def _decoded(
    blocks: Callable[[list[Notice]], Blocks],
    kept: Callable[[Samples], Samples],
    max_seconds: float,
    reel: Reel,
) -> list[Audio]:
    """`blocks` begins the recording, a second time where what it holds has to be known first; it
    is given a list for what is lost."""
    wild, losses = Wild(), list[Notice]()
    peak = _fill(reel, _resampled(_tame(blocks(losses), kept, wild)), max_seconds)
    if wild.peak > wild.limit_for_all():
        reel.clear()
        wild, losses = Wild(wild.limit_for_all()), []
        peak = _fill(reel, _resampled(_tame(blocks(losses), kept, wild)), max_seconds)
    losses = sorted([*losses, *wild.losses()], key=lambda loss: loss.start or 0.0)
    channels = reel.channels()
    if not channels or not len(channels[0]):
        raise InvalidAudio("The audio file holds no sound: its length is zero.")
    if peak > 1:
        for samples in channels:
            samples /= peak
    return [Audio(samples, tuple(losses)) for samples in channels]


def _tame(blocks: Blocks, kept: Callable[[Samples], Samples], wild: Wild) -> Blocks:
    """What is kept of each block, mixed or by channel, without samples that are not sound."""
    for block, rate in blocks:
        keep = kept(block)
        if not is_tame(keep):
            keep = kept(wild.tamed(block, rate))
        wild.passed(block, rate)
        yield keep, rate


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


def _fill(reel: Reel, blocks: Iterable[Samples], max_seconds: float) -> np.float32:
    """Puts all blocks (n, channels) on the reel. Returns the highest magnitude among them."""
    num_values, peak = 0, np.float32(0)
    for block in blocks:
        num_values += block.size
        if num_values > max_seconds * SAMPLE_RATE:
            num_channels = block.shape[1]
            channels = f", its {num_channels} channels together" if num_channels > 1 else ""
            raise TooLarge(
                f"The recording is longer than the limit of {max_seconds:g} seconds{channels}."
            )
        peak = max(peak, block.max(initial=0), -block.min(initial=0))
        reel.append(block)
    return peak


class _Parts:
    """Blocks in memory. They are let go as they are joined: memory is not doubled."""

    def __init__(self) -> None:
        self._parts: deque[Samples] = deque()

    def append(self, block_NC: Samples) -> None:
        self._parts.append(block_NC)

    def clear(self) -> None:
        self._parts.clear()

    def channels(self) -> list[Samples]:
        if not self._parts:
            return []
        num_channels = self._parts[0].shape[1]
        joined_CN = np.empty((num_channels, sum(map(len, self._parts))), np.float32)
        at = 0
        while self._parts:
            part = self._parts.popleft()
            joined_CN[:, at : at + len(part)] = part.T
            at += len(part)
        return list(joined_CN)
