"""Uploads to windows, off the event loop: a bounded number of them at a time."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import BinaryIO

from service.audio.decode import decode, decode_channels
from service.audio.lent import LentFile
from service.audio.segment import split
from service.errors import Cancelled, InvalidAudio, QueueFull
from service.types import Notice, TranscribeRequest, Window

# Recordings that may wait to be decoded: some for each thread, and a burst of short ones. Each
# holds its upload meanwhile.
READS_PER_THREAD, READS_IN_A_BURST = 8, 24
RETRY_READ_S = 2.0  # a short recording takes tens of milliseconds, a long one seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as it was read: its length, its windows, the seconds that took, and what of it
    could not be read."""

    duration_s: float
    windows: list[Window]
    decode_s: float
    losses: tuple[Notice, ...] = ()


class AudioReader:
    """Reads recordings on `num_threads` threads. Lives on one event loop."""

    def __init__(self, num_threads: int, max_audio_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="audio")
        self._max_audio_seconds = max_audio_seconds
        self._max_reads = READS_PER_THREAD * num_threads + READS_IN_A_BURST
        self.num_reads = 0

    async def read(self, source: BinaryIO, request: TranscribeRequest) -> Recording:
        """The windows of one recording. `source` is not touched after this returns or raises.

        Raises QueueFull where too many recordings wait to be read, and what `decode` raises.
        """
        if self.num_reads >= self._max_reads:
            raise QueueFull(
                f"the queue is full: {self.num_reads} recordings wait to be decoded", RETRY_READ_S
            )
        self.num_reads += 1
        lent = LentFile(source)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._decode_and_split, lent, request
            )
        finally:
            lent.take_back()
            self.num_reads -= 1

    def close(self) -> None:
        """Takes no more recordings; what is being read ends on its own."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _decode_and_split(self, lent: LentFile, request: TranscribeRequest) -> Recording:
        began = time.monotonic()
        with io.BufferedReader(lent, io.DEFAULT_BUFFER_SIZE * 8) as source:
            if request.split_channels:
                channels = decode_channels(source, self._max_audio_seconds)
            else:
                channels = [decode(source, self._max_audio_seconds)]
        if lent.taken_back:
            raise Cancelled("the request ended while its audio was decoded")
        losses = channels[0].losses
        if request.strict and losses:
            raise InvalidAudio(losses[0].message)
        windows = [
            replace(window, channel=number if request.split_channels else None)
            for number, audio in enumerate(channels)
            for window in split(audio, request.vad)
        ]
        # In time order: the channels of a call are heard, and streamed, side by side.
        windows.sort(key=lambda window: window.start_s)
        if request.options.language_only:
            del windows[1:]
        numbered = [replace(window, index=index) for index, window in enumerate(windows)]
        return Recording(channels[0].duration_s, numbered, time.monotonic() - began, losses)
