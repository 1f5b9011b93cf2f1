"""The pool of processes that decode: what a file does to its worker, nobody else notices."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import BinaryIO

from service.audio.jobs import ALIVE, ERRORS, Job, Reply
from service.audio.process import WorkerProcess
from service.audio.shared import descriptor_of, mapped
from service.errors import InvalidAudio, InvalidRequest, NotReady
from service.types import Audio

logger = logging.getLogger("winnow.audio")

SLOW_S = 0.25  # a file that gives no sample for so long is slow; ordinary ones take milliseconds
HANG_S = 10.0  # without a sign of life
FREE_CPU_S = 2.0  # before the first sample; an ordinary file takes a hundredth of it
_START_S = 60.0  # for a process to begin, on a slow disk too
_RETRY_START_S = 5.0
_END_S = 2.0  # for a process that was killed to be gone
_TRIES = 3  # of workers that are gone before they begin

CRASHED, STUCK, MEMORY = "crashed", "stuck", "memory"  # how a file costs a worker
_SAID = {
    CRASHED: "The audio file is corrupt: decoding it crashes the decoder.",
    STUCK: "The audio file is corrupt: the decoder gets nowhere with it.",
}


class _LostError(Exception):
    """A worker was lost to a file, for one of the reasons above."""


class WorkerPool:
    """Decodes recordings in processes of its own, `size` of which are kept for the next ones.

    Lives on one event loop. More than `size` recordings at once get a process each: how many may
    come is the caller's business. `on_lost` is told why whenever a file cost a worker.
    """

    def __init__(
        self,
        size: int,
        max_seconds: float,
        on_lost: Callable[[str], object],
        hang_s: float = HANG_S,
        free_cpu_s: float = FREE_CPU_S,
    ) -> None:
        self._size = size
        self._max_seconds = max_seconds
        self._on_lost = on_lost
        self._hang_s = hang_s
        self._free_cpu_s = free_cpu_s
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._closed = False

    @property
    def pids(self) -> set[int]:
        """Of the processes that there are."""
        return {worker.pid for worker in (*self._idle, *self._busy)}

    def cpu_s(self) -> float:
        """Processor time that they have taken; 0 where the system does not say."""
        return sum(worker.cpu_s() for worker in (*self._idle, *self._busy))

    def start(self) -> None:
        """Starts what is missing. Each gets ready on its own; what comes meanwhile waits."""
        while not self._closed and len(self._idle) + len(self._busy) < self._size:
            if not self._add():
                return

    async def decode(
        self, source: BinaryIO, split_channels: bool, on_slow: Callable[[], object]
    ) -> list[Audio]:
        """The samples of each channel, or of all mixed, as `decode` makes them in this process.

        They lie where the worker wrote them. `on_slow` is called now and then while a file gives
        no sample for longer than ordinary ones. `source` is not touched after this returns or
        raises. Raises what `decode` does; InvalidAudio also for a file that crashes or holds up
        its worker, TooLarge for one that takes too much memory; NotReady where no worker can be
        had. Cancelling it ends the work at once.
        """
        job = Job(self._max_seconds, split_channels, self._free_cpu_s)
        with descriptor_of(source) as recording:
            for _ in range(_TRIES):
                worker, keep = self._take(), False
                try:
                    if not await worker.begin(job, recording, _START_S):
                        continue
                    reply = await self._reply(worker, on_slow)
                    keep = not reply.spent
                    return self._taken(worker, reply)
                except _LostError as lost:
                    raise self._refusal(str(lost)) from None
                finally:
                    self._leave(worker, keep)
        raise self._not_ready()

    def close(self) -> None:
        """Ends all processes; what they are decoding is answered with NotReady."""
        self._closed = True
        ending = [worker.close() for worker in self._idle]
        ending += [worker.kill() for worker in self._busy]  # whose task lets go of it
        self._idle.clear()
        for thread in ending:
            thread.join(_END_S)

    def _give_way(self, on_slow: Callable[[], object]) -> None:
        """A worker may be busy for a while: there is another for who comes next."""
        if not self._idle:
            self._add()
        on_slow()

    def _add(self) -> bool:
        try:
            self._idle.append(WorkerProcess())
        except OSError as error:
            logger.error("an audio worker cannot be started: %s", error.strerror)
            return False
        return True

    def _take(self) -> WorkerProcess:
        if self._closed or not (self._idle or self._add()):
            raise self._not_ready()
        worker = self._idle.pop()
        self._busy.add(worker)
        return worker

    def _leave(self, worker: WorkerProcess, keep: bool) -> None:
        self._busy.discard(worker)
        if keep and not self._closed and len(self._idle) < self._size:
            self._idle.append(worker)
        else:
            worker.close()
            self.start()

    async def _reply(self, worker: WorkerProcess, on_slow: Callable[[], object]) -> Reply:
        """Waits for the answer. Raises _LostError."""
        alive, last_alive, cpu_s = False, time.monotonic(), 0.0
        try:
            while True:
                try:
                    line = await worker.line(SLOW_S)
                except TimeoutError:
                    # Who works is not stuck, on however busy a machine; the worker's own limit on
                    # processor time ends that.
                    if (now_cpu_s := worker.cpu_s()) != cpu_s:
                        cpu_s, last_alive = now_cpu_s, time.monotonic()
                    if time.monotonic() - last_alive >= self._hang_s:
                        raise _LostError(STUCK) from None
                    if not alive:
                        self._give_way(on_slow)
                    continue
                if line != ALIVE:
                    return Reply.read(line)
                alive, last_alive = True, time.monotonic()
        except EOFError:
            status = await worker.ended()
            raise _LostError(STUCK if status == -signal.SIGPROF else CRASHED) from None
        except (ValueError, KeyError, TypeError):
            raise _LostError(CRASHED) from None

    def _taken(self, worker: WorkerProcess, reply: Reply) -> list[Audio]:
        """What a reply says. Raises its error, and _LostError for one that cannot be."""
        if reply.trace:
            logger.error("unexpected in an audio worker: %s", reply.trace)
        if reply.swollen:
            self._on_lost(MEMORY)
        try:
            samples = worker.take_descriptor()
            try:
                if reply.error:
                    raise _error(reply)
                channels = mapped(samples, self._max_seconds, reply.num_channels, reply.num_samples)
            finally:
                os.close(samples)
        except (ValueError, KeyError, TypeError):
            raise _LostError(CRASHED) from None
        return [Audio(values, reply.losses) for values in channels]

    def _refusal(self, reason: str) -> InvalidAudio | NotReady:
        if self._closed:
            return self._not_ready()
        self._on_lost(reason)
        return InvalidAudio(_SAID[reason])

    def _not_ready(self) -> NotReady:
        if self._closed:
            return NotReady("not ready: the service is shutting down", _RETRY_START_S)
        return NotReady("not ready: no process can be had to decode the recording", _RETRY_START_S)


def _error(reply: Reply) -> Exception:
    kind = ERRORS[reply.error]
    return kind(reply.message, reply.param) if kind is InvalidRequest else kind(reply.message)
