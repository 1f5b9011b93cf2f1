"""Uploads to windows, off the event loop: a bounded number of them at a time."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import BinaryIO

from service.audio.segment import split
from service.audio.vad import alone
from service.audio.workers import WorkerPool
from service.errors import InvalidAudio, QueueFull
from service.metrics import Metrics
from service.types import Audio, Notice, TranscribeRequest, Window

# Recordings that may wait to be decoded: some for each thread, and a burst of short ones. Each
# holds its upload meanwhile.
READS_PER_THREAD, READS_IN_A_BURST = 8, 112
RETRY_READ_S = 2.0  # a short recording takes tens of milliseconds, a long one seconds
SLOW_PER_THREAD = 2  # files that give no sample, beside those that do


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as it was read: its length, its windows, the seconds that took, and what of it
    could not be read."""

    duration_s: float
    windows: list[Window]
    decode_s: float
    losses: tuple[Notice, ...] = ()


class AudioReader:
    """Reads recordings, `num_threads` at a time: each is decoded by a process, and heard and cut
    on a thread. Lives on one event loop."""

    def __init__(self, num_threads: int, max_audio_seconds: float, metrics: Metrics) -> None:
        self._workers = WorkerPool(
            num_threads,
            max_audio_seconds,
            lambda reason: metrics.lost_audio_workers.labels(reason).inc(),
        )
        self._threads = ThreadPoolExecutor(num_threads, "audio", initializer=alone)
        self._turns = _Turns(num_threads, SLOW_PER_THREAD * num_threads)
        self._max_reads = READS_PER_THREAD * num_threads + READS_IN_A_BURST
        self.num_reads = 0
        # For those who would rather wait than be refused, until their windows are in the queue:
        # what is decoded and waits there costs the memory of so many recordings, not of every one.
        self.waiting_room = asyncio.Semaphore(num_threads)

    def start(self) -> None:
        """Starts the processes, which the first recording would have to wait for."""
        self._workers.start()

    @property
    def worker_pids(self) -> set[int]:
        """Of the processes that decode."""
        return self._workers.pids

    async def read(self, source: BinaryIO, request: TranscribeRequest) -> Recording:
        """The windows of one recording. `source` is not touched after this returns or raises.

        Raises QueueFull where too many recordings wait to be read, InvalidAudio for one of which
        a part is lost and the request is strict, and what `WorkerPool.decode` raises.
        """
        if self.num_reads >= self._max_reads:
            raise QueueFull(
                f"the queue is full: {self.num_reads} recordings wait to be decoded", RETRY_READ_S
            )
        self.num_reads += 1
        try:
            async with _Turn(self._turns) as turn:
                began = time.monotonic()
                channels = await self._workers.decode(source, request.split_channels, turn.give_way)
                return await self._cut(channels, request, began)
        finally:
            self.num_reads -= 1

    def close(self) -> None:
        """Takes no more recordings. What is being decoded ends, what is being cut ends on its
        own."""
        self._workers.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _cut(
        self, channels: list[Audio], request: TranscribeRequest, began: float
    ) -> Recording:
        losses = channels[0].losses
        if request.strict and losses:
            raise InvalidAudio(losses[0].message)
        loop = asyncio.get_running_loop()
        duration_s = channels[0].duration_s
        windows = await loop.run_in_executor(self._threads, _windows, channels, request)
        return Recording(duration_s, windows, time.monotonic() - began, losses)


def _windows(channels: list[Audio], request: TranscribeRequest) -> list[Window]:
    windows = [
        replace(window, channel=number if request.split_channels else None)
        for number, audio in enumerate(channels)
        for window in split(audio, request.vad)
    ]
    channels.clear()
    # In time order: the channels of a call are heard, and streamed, side by side.
    windows.sort(key=lambda window: window.start_s)
    if request.options.language_only:
        del windows[1:]
    return [replace(window, index=index) for index, window in enumerate(windows)]


class _Turns:
    """Who may decode: so many at a time, in the order they came, and some that gave way."""

    def __init__(self, num: int, num_aside: int) -> None:
        self.free = asyncio.Semaphore(num)
        self.num_aside = num_aside


class _Turn:
    """One recording's turn. One that is slow to begin gives it to the next and goes on beside it:
    a few hostile files do not hold up everybody else's. A bounded number may, and none of those
    has samples in memory when it does."""

    def __init__(self, turns: _Turns) -> None:
        self._turns = turns
        self._aside = False

    async def __aenter__(self) -> _Turn:
        await self._turns.free.acquire()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._aside:
            self._turns.num_aside += 1
        else:
            self._turns.free.release()

    def give_way(self) -> None:
        if not self._aside and self._turns.num_aside:
            self._aside = True
            self._turns.num_aside -= 1
            self._turns.free.release()
