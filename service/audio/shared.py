"""Memory that two processes see: a file without a name, and the samples that lie in it."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from service.types import SAMPLE_RATE, Samples

_VALUE_BYTES = 4


def anonymous_file() -> int:
    """The descriptor of an empty file that is gone once nobody has it open. In memory where the
    system has such files, which is Linux."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("winnow", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@contextmanager
def descriptor_of(source: BinaryIO) -> Iterator[int]:
    """A descriptor that reads what `source` holds; its own, or that of a copy in memory where it
    has none. Whoever reads there may move the place that `source` is at."""
    # A spooled file has no name while it is in memory. Asking for its descriptor would write it
    # to disk.
    if getattr(source, "name", None) is not None:
        yield source.fileno()
        return
    source.seek(0)
    copy = anonymous_file()
    try:
        write_all(copy, source.read(), 0)
        yield copy
    finally:
        os.close(copy)


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """Writes at a place in the file. Raises OSError."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


class SharedReel:
    """Samples in an anonymous file, a stretch of it for each channel. What no sample was written
    to takes no memory. The file is the caller's to close."""

    def __init__(self, fd: int, max_seconds: float) -> None:
        self._fd = fd
        self._max_seconds = max_seconds
        self.num_channels = self.num_samples = 0

    def append(self, block_NC: Samples) -> None:
        self.num_channels = block_NC.shape[1]
        stride = _stride(self._max_seconds, self.num_channels)
        for channel in range(self.num_channels):
            values = np.ascontiguousarray(block_NC[:, channel])
            at = channel * stride + self.num_samples * _VALUE_BYTES
            write_all(self._fd, values.data, at)
        self.num_samples += len(block_NC)

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)
        self.num_channels = self.num_samples = 0

    def channels(self) -> list[Samples]:
        return mapped(self._fd, self._max_seconds, self.num_channels, self.num_samples)


def mapped(fd: int, max_seconds: float, num_channels: int, num_samples: int) -> list[Samples]:
    """The samples of each channel on a reel, where they lie; not copied.

    Raises ValueError where the file cannot hold them, or the limit forbids it.
    """
    if num_channels < 0 or num_samples < 0:
        raise ValueError("a number of samples below zero")
    if num_channels * num_samples == 0:
        return []
    if num_channels * num_samples > max_seconds * SAMPLE_RATE:
        raise ValueError("more samples than the limit allows")
    stride, length = _stride(max_seconds, num_channels), num_samples * _VALUE_BYTES
    if os.fstat(fd).st_size < (num_channels - 1) * stride + length:
        raise ValueError("the file ends before its samples")
    return [
        np.frombuffer(mmap.mmap(fd, length, offset=channel * stride), np.float32)
        for channel in range(num_channels)
    ]


def _stride(max_seconds: float, num_channels: int) -> int:
    """Bytes from one channel's first sample to the next one's: all that the limit allows."""
    least = int(max_seconds * SAMPLE_RATE) // num_channels * _VALUE_BYTES
    return (least // mmap.ALLOCATIONGRANULARITY + 1) * mmap.ALLOCATIONGRANULARITY
